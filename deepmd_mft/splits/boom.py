"""BOOM's split by the density of the target (Antoniuk et al., 2025; MFT paper, C.1)."""

from __future__ import annotations

import random

import numpy as np

from deepmd_mft.splits.density import lowest_density
from deepmd_mft.splits.fold import Fold, amount, draw, members

__all__ = ["boom"]


def boom(
    values: np.ndarray,
    groups: np.ndarray,
    *,
    n_ood: float = 10_000,
    id_test: float = 0.05,
    val: float = 0.05,
    seed: int = 42,
) -> list[Fold]:
    """Lowest-density targets out, ID test set at random from the rest.

    Follows BOOM's released script: groups (there: equal SMILES) count once, with the value
    of their last row; scikit-learn's Gaussian KDE with the "scott" bandwidth, n^(-1/5) in
    the unit of the values; the ``n_ood`` lowest densities are OOD; then, in the order of
    the rows, each other group goes to the ID test set with probability ``id_test``, drawn
    by ``random.Random(seed)``. BOOM has no validation set: ours is drawn from its training
    set.

    Parameters
    ----------
    values : np.ndarray
        Target, shape ``nrows``, in the unit whose Scott bandwidth is meant.
    groups : np.ndarray
        Group of every row, shape ``nrows``, numbered in order of appearance.
    n_ood : float
        How many groups are OOD, or which fraction if below 1.
    id_test : float
        Probability of the ID test set.
    val : float
        Count, or fraction of the training rows.
    seed : int
        Seed of both draws.
    """
    representatives = np.empty(groups.max() + 1)
    representatives[groups] = values  # the last row of a group stays
    n = amount(n_ood, len(representatives), "--ood")
    ood_groups = lowest_density(representatives, n)
    is_ood = np.zeros(len(representatives), dtype=bool)
    is_ood[ood_groups] = True
    coin = random.Random(seed)  # noqa: S311 - BOOM's own generator, for the same sets
    id_groups = np.array(
        [g for g in np.flatnonzero(~is_ood) if coin.random() < id_test], dtype=np.int64
    )
    train_groups = np.setdiff1d(np.flatnonzero(~is_ood), id_groups)
    train = members(groups, train_groups)
    chosen, train = draw(
        train, groups, amount(val, len(train), "--val"), np.random.default_rng(seed)
    )
    return [Fold("", train, chosen, members(groups, id_groups), members(groups, ood_groups))]
