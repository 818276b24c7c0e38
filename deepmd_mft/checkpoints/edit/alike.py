"""Whether two models are one network with other weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Keys of a model's JSON that say how it is trained or its statistics are fitted, not what it is.
OF_TRAINING = {
    "seed",
    "trainable",
    "finetune_head",
    "model_branch_alias",
    "info",
    "data_stat_nbatch",
    "data_stat_protect",
    "data_bias_nsample",
    "preset_out_bias",
    "bias",
    "distinguish_types",
    "rcond",
}


def first_difference(
    params: tuple[dict[str, Any], dict[str, Any]], states: tuple[dict[str, Any], dict[str, Any]]
) -> str | None:
    """Say in what two models differ beside their weights; None if in nothing.

    Parameters
    ----------
    params : tuple of dict
        The JSON of each. Keys that only one of them has, as of another release of deepmd-kit, are
        passed over: what they change shows in the weights' names and shapes.
    states : tuple of dict
        The weights of each, by the same names if they are alike.
    """
    for place, one, other in _differences(*params, ""):
        return f"{place} is {_short(one)} in the first and {_short(other)} in the second"
    first, second = states
    for name in (*first, *second):
        if name not in first or name not in second:
            where = "first" if name in first else "second"
            return f"only the {where} has {name}"
        one, other = first[name], second[name]
        if not (isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)):
            continue
        if one.shape != other.shape or one.dtype != other.dtype:
            return (
                f"{name} is {tuple(one.shape)}, {one.dtype} in the first and "
                f"{tuple(other.shape)}, {other.dtype} in the second"
            )
    return None


def _differences(one: Any, other: Any, place: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in one:
            if key in other and key not in OF_TRAINING:
                yield from _differences(one[key], other[key], f"{place}/{key}" if place else key)
    elif one != other:
        yield place, one, other


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
