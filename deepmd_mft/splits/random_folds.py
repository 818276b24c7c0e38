"""Splits without an OOD test set: random, k-fold and MatBench's official folds."""

from __future__ import annotations

import numpy as np

from deepmd_mft.errors import UserError
from deepmd_mft.splits.fold import Fold, amount, carve, draw, generator, members, whole

__all__ = ["kfold", "matbench", "random_split"]

#: Dunn et al. (2020): five folds, shuffled with this seed; stratified for the metal class.
MATBENCH_FOLDS, MATBENCH_SEED = 5, 18012019

_NONE = np.empty(0, dtype=np.int64)


def random_split(
    groups: np.ndarray, *, id_test: float = 0.1, val: float = 0.1, seed: int = 0
) -> list[Fold]:
    """Draw the ID test and the validation set at random; there is no OOD test set.

    Parameters
    ----------
    groups : np.ndarray
        Group of every row, shape ``nrows``.
    id_test, val : float
        Count or fraction.
    seed : int
        Seed of the draws.
    """
    rng = generator(seed)
    return [carve("", _NONE, groups, id_test=id_test, val=val, rng=rng)]


def kfold(groups: np.ndarray, *, folds: int = 5, val: float = 0.1, seed: int = 0) -> list[Fold]:
    """Divide into folds of about equal size; each is the ID test set once.

    Parameters
    ----------
    groups : np.ndarray
        Group of every row, shape ``nrows``.
    folds : int
        Number of folds.
    val : float
        Count, or fraction of what is not tested.
    seed : int
        Seed of the draws.
    """
    present = int(groups.max()) + 1
    if not 2 <= whole(folds, 2, "--folds") <= present:
        raise UserError(f"--folds {folds} is not between 2 and {present} (different) rows")
    rng = generator(seed)
    blocks = np.array_split(rng.permutation(present), folds)
    tests = [members(groups, block) for block in blocks]
    return [_tested(str(i), test, groups, val, rng) for i, test in enumerate(tests)]


def matbench(
    values: np.ndarray,
    source_rows: np.ndarray,
    groups: np.ndarray,
    *,
    val: float = 0.1,
    seed: int = 0,
) -> list[Fold]:
    """MatBench's five folds, as the ``matbench`` package has them.

    ``KFold(5, shuffle=True, random_state=18012019)`` over the rows of the task, stratified
    where the target is a class. The test sets stay as MatBench has them, whatever the groups;
    the validation set is drawn group by group.

    Parameters
    ----------
    values : np.ndarray
        Target, shape ``nrows``; a target of zeros and ones is a class.
    source_rows : np.ndarray
        Row of each in the MatBench file; all must be there.
    groups : np.ndarray
        Group of every row, shape ``nrows``.
    val : float
        Count, or fraction of the training rows.
    seed : int
        Seed of the validation draw (MatBench leaves validation to the user).
    """
    from sklearn.model_selection import KFold, StratifiedKFold  # noqa: PLC0415

    n = len(values)
    if not np.array_equal(source_rows, np.arange(n)):
        raise UserError(
            "the official folds need all rows of the MatBench file in their order; this set "
            f"leaves some out (row {int(np.flatnonzero(source_rows != np.arange(n))[0])} is not "
            "its own number); convert the whole file"
        )
    if set(np.unique(values)) <= {0.0, 1.0}:
        folds = StratifiedKFold(MATBENCH_FOLDS, shuffle=True, random_state=MATBENCH_SEED)
    else:
        folds = KFold(MATBENCH_FOLDS, shuffle=True, random_state=MATBENCH_SEED)
    rng = generator(seed)
    parts = folds.split(np.arange(n), values)
    return [_tested(str(i), test, groups, val, rng) for i, (_, test) in enumerate(parts)]


def _tested(
    name: str, test: np.ndarray, groups: np.ndarray, val: float, rng: np.random.Generator
) -> Fold:
    rest = np.setdiff1d(np.arange(len(groups)), test)
    chosen, rest = draw(rest, groups, amount(val, len(rest), "--val"), rng)
    return Fold(name, rest, chosen, np.sort(test), _NONE)
