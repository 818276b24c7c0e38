"""What a branch is, from its JSON: in an input, a checkpoint or a frozen model alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping


def head_type(model: Mapping[str, Any]) -> str:
    """Return the type of a branch's fitting net, deepmd-kit's default included.

    Parameters
    ----------
    model : mapping
        The branch's model: the JSON with ``descriptor`` and ``fitting_net``.
    """
    return str((model.get("fitting_net") or {}).get("type", "ener"))


def is_property(model: Mapping[str, Any]) -> bool:
    """Whether the branch learns a property, with a head of this package or deepmd-kit's."""
    kind = head_type(model)
    return kind.startswith("mft_") or kind == "property"


def property_columns(model: Mapping[str, Any]) -> dict[str, int]:
    """Return the properties of a branch and how many columns their label files have.

    Parameters
    ----------
    model : mapping
        As for :func:`head_type`; the defaults of ``task_dim`` need not be filled in.

    Returns
    -------
    dict of str to int
        Empty if the fitting net names no property.

    Raises
    ------
    UserError
        If ``task_dim`` is a list of another length than ``property_name``.
    """
    net = model.get("fitting_net") or {}
    names = as_list(net.get("property_name"))
    dims = as_list(net.get("task_dim", 1))
    if head_type(model) == "mft_classification":
        dims = [1]  # the number of the class
    if len(dims) == 1:
        dims *= len(names)
    if len(dims) != len(names):
        raise UserError(
            f"task_dim has {len(dims)} entries for {len(names)} properties ({', '.join(names)}); "
            "give one for each, or a single value for all"
        )
    return {str(name): int(dim) for name, dim in zip(names, dims, strict=True)}


def as_list(value: Any) -> list[Any]:
    """Return a value of the JSON as a list: ``"gap"`` and ``["gap"]`` mean the same."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]
