"""Averages of checkpoints: uniform and greedy soups (Wortsman et al., arXiv 2203.05482)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from deepmd_mft.checkpoints.file import read_state

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def average(paths: list[Path]) -> dict[str, Any]:
    """Return the mean of the weights of checkpoints, all branches.

    Parameters
    ----------
    paths : list of Path
        Checkpoints of one run.

    Returns
    -------
    dict
        A state dictionary; what is not a floating-point tensor comes from the last checkpoint.
    """
    total: dict[str, Any] = {}
    for path in paths:
        for key, value in read_state(path).items():
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                share = value.to(torch.float64) / len(paths)
                total[key] = total[key] + share if key in total else share
            else:
                total[key] = value
    last = read_state(paths[-1])
    return {
        key: value.to(last[key].dtype) if isinstance(value, torch.Tensor) else value
        for key, value in total.items()
    }


def greedy(
    ranked: list[Path], score: Callable[[list[Path]], float], best: float
) -> tuple[list[Path], float]:
    """Add checkpoints to the average, best first, as long as it gets better.

    Parameters
    ----------
    ranked : list of Path
        Best first.
    score : callable
        Validation score of the average of some checkpoints; smaller is better.
    best : float
        Score of ``ranked[0]``.

    Returns
    -------
    chosen : list of Path
    score : float
    """
    chosen = ranked[:1]
    for path in ranked[1:]:
        tried = score([*chosen, path])
        if tried < best:
            chosen, best = [*chosen, path], tried
    return chosen, best
