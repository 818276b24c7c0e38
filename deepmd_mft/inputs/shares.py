"""Shares of the steps: ``model_prob``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deepmd_mft.errors import UserError
from deepmd_mft.inputs.folders import look_into

if TYPE_CHECKING:
    from pathlib import Path

#: How far the shares that are given for all branches may be from one together.
ROUNDING = 1e-6


def choose_shares(
    old: dict[str, float] | None,
    main: str,
    train: dict[str, list[Path]],
    given: dict[str, float],
    temperature: float | None,
) -> dict[str, float] | None:
    """Return ``model_prob`` of every branch; None if the template's stays.

    Parameters
    ----------
    old : dict of float, optional
        The template's.
    main : str
        The property branch.
    train : dict of list of Path
        Training data of every branch.
    given : dict of float
        Shares by branch; under an empty name the property's. What they leave is divided equally
        among the others.
    temperature : float, optional
        Shares by the numbers of training structures instead, n^(1/T) (JMP, T = 2).

    Raises
    ------
    UserError
        If a branch is not there, or shares do not add up to 1.
    """
    if temperature is not None:
        return _by_temperature(train, temperature)
    given = {name or main: share for name, share in given.items()}
    unknown = [name for name in given if name not in train]
    if unknown:
        raise UserError(f"--share: there is no branch '{unknown[0]}' ({', '.join(train)})")
    if not given:
        if old is not None and old.keys() == train.keys():
            return None
        total = sum((old or {}).values())
        given = {main: old[main] / total} if old and total and main in old else {}
    rest = [name for name in train if name not in given]
    left = 1 - sum(given.values())
    wrong = left < ROUNDING if rest else abs(left) > ROUNDING
    if wrong and (rest or given):
        told = ", ".join(f"{name} {share:g}" for name, share in given.items())
        raise UserError(
            f"--share: {told} add up to {1 - left:g}"
            + (f", which leaves nothing for {', '.join(rest)}" if rest else "; they are parts of 1")
        )
    return {name: given.get(name, round(left / max(len(rest), 1), 12)) for name in train}


def _by_temperature(train: dict[str, list[Path]], temperature: float) -> dict[str, float]:
    missing = [name for name, folders in train.items() if not folders]
    if missing:
        raise UserError(
            f"--temperature counts structures, and {', '.join(missing)} is given none: give "
            "--train and --aux-train"
        )
    return shares_by_size(
        {branch: look_into(folders).frames for branch, folders in train.items()}, temperature
    )


def shares_by_size(sizes: dict[str, int], temperature: float) -> dict[str, float]:
    """Return shares that go as n^(1/T) with the numbers n of structures (JMP, section 4.2)."""
    most = max(sizes.values())  # no power of it is too large
    weights = {branch: (size / most) ** (1 / temperature) for branch, size in sizes.items()}
    return {branch: round(weight / sum(weights.values()), 6) for branch, weight in weights.items()}
