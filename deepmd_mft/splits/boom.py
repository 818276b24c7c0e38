"""BOOM's split by the density of the target (Antoniuk et al., 2025; MFT paper, C.1)."""

from __future__ import annotations

import random

import numpy as np

from deepmd_mft.splits.density import lowest_density
from deepmd_mft.splits.fold import Fold, amount, draw, generator, members

__all__ = ["boom"]


def boom(
    values: np.ndarray,
    groups: np.ndarray,
    *,
    ood: float = 10_000,
    id_test: float = 0.05,
    val: float = 0.05,
    seed: int = 42,
) -> list[Fold]:
    """Lowest-density targets out, ID test set at random from the rest.

    Follows BOOM's released script: groups (there: equal SMILES) count once, with the value
    of their last row; scikit-learn's Gaussian KDE with the "scott" bandwidth, n^(-1/5) in
    the unit of the values; the ``ood`` lowest densities are OOD; then, in the order of
    the rows, each other group goes to the ID test set with probability ``id_test``, drawn
    by ``random.Random(seed)``. BOOM has no validation set: ours is drawn from its training
    set.

    Parameters
    ----------
    values : np.ndarray
        Target, shape ``nrows``, in the unit whose Scott bandwidth is meant.
    groups : np.ndarray
        Group of every row, shape ``nrows``, numbered in order of appearance.
    ood : float
        How many groups are OOD, or which fraction if below 1.
    id_test : float
        Probability of the ID test set; from 1 on, a count of rows, drawn as the validation set.
    val : float
        Count, or fraction of the training rows.
    seed : int
        Seed of both draws.
    """
    representatives = np.empty(groups.max() + 1)
    representatives[groups] = values  # the last row of a group stays
    rng = generator(seed)
    is_ood = np.zeros(len(representatives), dtype=bool)
    is_ood[lowest_density(representatives, amount(ood, len(representatives), "--ood"))] = True
    rest = members(groups, np.flatnonzero(~is_ood))
    wanted = amount(id_test, len(rest), "--id-test")
    if id_test < 1:
        coin = random.Random(seed)  # noqa: S311 - BOOM's own generator, for the same sets
        heads = [group for group in np.flatnonzero(~is_ood) if coin.random() < id_test]
        chosen_id = members(groups, np.array(heads, dtype=np.int64))
        train = np.setdiff1d(rest, chosen_id)
    else:
        chosen_id, train = draw(rest, groups, wanted, rng)
    chosen, train = draw(train, groups, amount(val, len(train), "--val"), rng)
    return [Fold("", train, chosen, chosen_id, members(groups, np.flatnonzero(is_ood)))]
