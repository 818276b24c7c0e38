"""Whether what a loss asks of validation while training can be had."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    from deepmd_mft.inputs.branches import Branch


def watched(branches: list[Branch]) -> Branch | None:
    """Return the branch that is validated while it is trained; None if no loss asks for it.

    Raises
    ------
    UserError
        If several do.
    """
    found = [branch for branch in branches if branch.loss.get("validation")]
    if len(found) > 1:
        names = ", ".join(branch.where for branch in found)
        raise UserError(
            f"validation is in the losses of {names}; the best checkpoint can be that of one "
            "branch only, keep it in the loss of the property that matters"
        )
    return found[0] if found else None


def check_validation(config: dict[str, Any], branches: list[Branch]) -> None:
    """Check that there are data to validate on, and someone to see the plateaus.

    Parameters
    ----------
    config : dict
        The normalised input.
    branches : list of Branch

    Raises
    ------
    UserError
        If not.
    """
    branch = watched(branches)
    if branch is None and config["learning_rate"].get("plateau"):
        raise UserError(
            "learning_rate/plateau looks at the validation error, which nothing measures: add "
            '"validation": {"freq": 200} to the loss of the property, or take plateau out'
        )
    if branch is not None and not (branch.data.get("validation_data") or {}).get("systems"):
        raise UserError(
            f"{branch.where}: its loss has validation, but its data no validation_data/systems; "
            "add them (never a test set), or take validation out of the loss"
        )
