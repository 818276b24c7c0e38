"""Weighted means of checkpoints.

Points between two are WiSE-FT (Wortsman et al., arXiv 2109.01903); uniform and greedy means of
several are soups (Wortsman et al., arXiv 2203.05482).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import torch

from deepmd_mft.checkpoints.file import read_state
from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

Member = TypeVar("Member")


def average(paths: list[Path]) -> dict[str, Any]:
    """Return the mean of the weights of checkpoints of one run, all branches."""
    return mean([read_state(path) for path in paths], [1 / len(paths)] * len(paths))


def mean(states: Sequence[dict[str, Any]], weights: Sequence[float]) -> dict[str, Any]:
    """Return the weighted mean of states of one network.

    Parameters
    ----------
    states : sequence of dict
        As :func:`~deepmd_mft.checkpoints.file.read_state` returns them, of equal names and shapes.
    weights : sequence of float
        One a state; their sum is 1. States of weight 0 have no part in it.

    Returns
    -------
    dict
        Floating-point tensors, fitted statistics among them, are averaged in float64; those that
        are the same in all states stay so to the bit, and a single state of weight 1 comes out as
        it is. ``_extra_state`` is the last one's.

    Raises
    ------
    UserError
        If integers differ: between them there is nothing.
    """
    chosen = [(state, weight) for state, weight in zip(states, weights, strict=True) if weight]
    found: dict[str, Any] = {}
    known: dict[tuple[Any, ...], torch.Tensor] = {}  # one tensor of two names stays one
    for name, value in states[-1].items():
        if not isinstance(value, torch.Tensor):
            found[name] = value
            continue
        parts = [state[name] for state, _ in chosen]
        place = (value.shape, *(part.data_ptr() for part in parts))
        if place not in known:
            known[place] = _mean(name, parts, [weight for _, weight in chosen])
        found[name] = known[place]
    return found


def _mean(name: str, parts: list[torch.Tensor], weights: list[float]) -> torch.Tensor:
    first, *others = parts
    if all(torch.equal(first, other) for other in others):
        return first
    if not first.is_floating_point():
        raise UserError(f"{name} differs between the checkpoints and is not a number to average")
    shares = [part.to(torch.float64) * weight for part, weight in zip(parts, weights, strict=True)]
    return torch.stack(shares).sum(dim=0).to(first.dtype)


def greedy(
    ranked: list[Member], score: Callable[[list[Member]], float], best: float
) -> tuple[list[Member], float]:
    """Add checkpoints to the average, best first, as long as it gets better.

    Parameters
    ----------
    ranked : list
        Best first.
    score : callable
        Validation score of the average of some checkpoints; smaller is better.
    best : float
        Score of ``ranked[0]``.

    Returns
    -------
    chosen : list
    score : float
    """
    chosen = ranked[:1]
    for one in ranked[1:]:
        tried = score([*chosen, one])
        if tried < best:
            chosen, best = [*chosen, one], tried
    return chosen, best
