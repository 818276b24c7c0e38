"""Errors of several files of one model: over seeds of a set, and over the folds of a split.

A spread of seeds is that of one set; a spread of folds has each fold once, whatever its seeds. The
two are never mixed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats

from deepmd_mft.evaluation.folds import fold_of_set, without_fold
from deepmd_mft.evaluation.metrics import LARGER_IS_BETTER

if TYPE_CHECKING:
    from collections.abc import Sequence


def mean(values: pd.Series) -> float:
    """Return the mean; NaN if one is NaN: a run that failed is not averaged away."""
    return float(values.mean(skipna=False))


def std(values: pd.Series) -> float:
    """Return the standard deviation (n - 1); NaN if one is NaN."""
    return float(values.std(skipna=False))


def over_seeds(table: pd.DataFrame, keys: Sequence[str], metrics: Sequence[str]) -> pd.DataFrame:
    """Return mean and standard deviation (n - 1) over the rows of one set.

    Parameters
    ----------
    table : pd.DataFrame
        A row for each file and set.
    keys : sequence of str
        Columns that say which rows are of one model.
    metrics : sequence of str
        Columns of errors.
    """
    by = table.groupby([*keys, "set"], sort=False)
    found = by[list(metrics)].agg([mean, std])
    found.columns = ["_".join(column) for column in found.columns]
    found.insert(0, "files", by.size())
    return found.reset_index()


def by_fold(table: pd.DataFrame, keys: Sequence[str], metrics: Sequence[str]) -> pd.DataFrame:
    """Return the errors of every fold, means over its seeds; ``set`` is the set without its fold.

    Rows of sets that belong to no fold are left out.
    """
    folded = table.assign(fold=table["set"].map(fold_of_set), set=table["set"].map(without_fold))
    folded = folded[folded["fold"] != ""]
    by = folded.groupby([*keys, "set", "fold"], sort=False)
    found = by[list(metrics)].agg(mean)
    found.insert(0, "files", by.size())
    return found.reset_index()


def over_folds(table: pd.DataFrame, keys: Sequence[str], metrics: Sequence[str]) -> pd.DataFrame:
    """Return mean and standard deviation over folds, as MatBench has them.

    The mean of the folds' errors and their standard deviation, divided by n (the ``matbench``
    package, which takes numpy's); of several seeds in a fold their mean comes first.

    Parameters
    ----------
    table, keys, metrics
        As for :func:`over_seeds`.

    Returns
    -------
    pd.DataFrame
        Columns ``keys``, ``set``, ``folds``, ``files``, and mean and std of each metric; a row
        only for what has several folds.
    """
    each = by_fold(table, keys, metrics)
    rows = []
    for place, own in each.groupby([*keys, "set"], sort=False):
        row: dict[str, Any] = dict(zip([*keys, "set"], place, strict=True))
        row |= {"folds": len(own), "files": int(own["files"].sum())}
        for metric in metrics:
            values = own[metric].to_numpy(dtype=float)
            row |= {f"{metric}_mean": values.mean(), f"{metric}_std": values.std()}
        rows.append(row)
    numbers = [f"{metric}_{kind}" for metric in metrics for kind in ("mean", "std")]
    found = pd.DataFrame(rows, columns=[*keys, "set", "folds", "files", *numbers])
    return found[found["folds"] > 1].reset_index(drop=True)


def difference(
    mine: np.ndarray, base: np.ndarray, ratio: float, metric: str
) -> dict[str, float | int]:
    """Compare two models on the same folds.

    The training sets of folds overlap, so their errors are not independent: the variance of the
    mean is (1/n + n_test/n_train) s^2 (Nadeau and Bengio, Mach. Learn. 52, 239 (2003)), and the
    interval is that of Student's t with n - 1 degrees of freedom.

    Parameters
    ----------
    mine, base : np.ndarray
        Errors by fold, shape ``nfolds``.
    ratio : float
        Test structures per training structure; NaN if not known: no interval then.
    metric : str
        Of which larger may be better.

    Returns
    -------
    dict
        ``mean`` and ``std`` (divided by n) of mine - base, ``low`` and ``high`` (95 %), and in how
        many folds mine is ``better``.
    """
    values = mine - base
    n = len(values)
    half = np.nan
    if n > 1:
        error = np.sqrt((1 / n + ratio) * values.var(ddof=1))
        half = float(stats.t.ppf(0.975, n - 1) * error)
    better = values > 0 if metric in LARGER_IS_BETTER else values < 0
    return {
        "folds": n,
        "mean": float(values.mean()),
        "std": float(values.std()),
        "low": float(values.mean() - half),
        "high": float(values.mean() + half),
        "better": int(better.sum()),
    }
