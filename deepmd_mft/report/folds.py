"""Folds on the page: which runs belong together, fold by fold, and differences over folds."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from deepmd_mft.evaluation.aggregate import by_fold, difference, mean, over_folds, std
from deepmd_mft.evaluation.folds import fold_of_set
from deepmd_mft.names import CLASSES as OF_CLASSES
from deepmd_mft.names import REGRESSION
from deepmd_mft.report.errors import BASELINES, digits
from deepmd_mft.report.strategy import STRATEGIES

if TYPE_CHECKING:
    from pathlib import Path

    from deepmd_mft.report.runs import Run

KEYS = ["strategy", "labels"]
#: Errors that are shown fold by fold, MatBench's own first, and their headings.
NUMBERS = (("mae", "MAE"), ("rmse", "RMSE"))
CLASSES = (("accuracy", "accuracy"), ("roc_auc", "ROC-AUC"))
#: Tables of more folds are folded away.
MOST_OPEN = 10


def fold_of(run: Run) -> str:
    """Return the fold of a run: that of all its sets; empty if there is none."""
    found = {fold_of_set(name) for name in run.sets}
    return found.pop() if len(found) == 1 else ""


def with_common_sizes(runs: list[Run]) -> list[Run]:
    """Return runs whose ``training.labels`` is one number for all folds.

    Folds are rarely of one size, and a size of training set is what runs are grouped by: the
    smallest of each fold belong together, and so on; their number is the mean over the folds. What
    a run itself had is in ``training.counted``.
    """
    sizes: dict[str, set[int]] = {}
    for run in runs:
        sizes.setdefault(fold_of(run), set()).add(run.training.labels or 0)
    known = {fold: sorted(own) for fold, own in sizes.items()}
    if len(known) < 2 or len({len(own) for own in known.values()}) > 1:
        return runs
    if any(0 in own for own in known.values()):  # the training data of some are not there
        return runs
    common = [round(float(np.mean(own))) for own in zip(*known.values(), strict=True)]
    found = []
    for run in runs:
        labels = run.training.labels or 0
        rank = known[fold_of(run)].index(labels)
        training = replace(run.training, labels=common[rank], counted=labels)
        found.append(replace(run, training=training))
    return found


def pooled(runs: list[Run]) -> list[Run]:
    """Return one run of each strategy: the first, of folds with the tests of the other folds."""
    found = []
    for strategy in dict.fromkeys(run.strategy for run in runs):
        first: dict[str, Run] = {}
        for run in runs:
            if run.strategy == strategy:
                first.setdefault(fold_of(run), run)
        own = list(first.values())
        if len(own) == 1:
            found += own
            continue
        sets = {name: one for run in own for name, one in run.record["sets"].items()}
        found.append(
            replace(
                own[0],
                folder=own[0].folder.with_name(f"{strategy}-in-{len(own)}-folds"),
                predictions=pd.concat([run.predictions for run in own], ignore_index=True),
                record={**own[0].record, "sets": sets},
            )
        )
    return found


def mean_and_spread(own: pd.DataFrame, metric: str) -> tuple[float, float, str]:
    """Return mean and standard deviation of an error over the runs of a strategy and test set.

    Returns
    -------
    mean, std : float
        Over folds as :func:`~deepmd_mft.evaluation.aggregate.over_folds` has them.
    over : str
        ``folds``, ``seeds``, or nothing for a single run.
    """
    folds = over_folds(own, KEYS, [metric])
    if len(folds):
        return (
            float(folds[f"{metric}_mean"].iloc[0]),
            float(folds[f"{metric}_std"].iloc[0]),
            "folds",
        )
    over = "seeds" if len(own) > 1 else ""
    return mean(own[metric]), std(own[metric]), over


def runs_in_words(own: pd.DataFrame) -> str:
    """Return how many runs the rows of a strategy and test set are."""
    folds = own["set"].nunique()
    seeds = own.groupby("set").size()
    if folds < 2:
        return f"{len(own)} run{'s' if len(own) > 1 else ''}"
    if seeds.min() < seeds.max():
        return f"{len(own)} runs in {folds} folds"
    return f"{folds} folds" + (f" x {seeds.iloc[0]} seeds" if seeds.iloc[0] > 1 else "")


def labels_in_words(runs: list[Run], labels: int) -> str:
    """Return a number of labels, of folds its range."""
    counted = [
        run.training.counted
        for run in runs
        if run.training.labels == labels and run.training.counted is not None
    ]
    if labels < 0:
        return "labels unknown"
    if not counted or min(counted) == max(counted):
        return f"{labels} labels"
    return f"{min(counted)} to {max(counted)} labels"


def fold_tables(runs: list[Run], table: pd.DataFrame, test: str) -> dict[str, Any] | None:
    """Return what the page shows of the folds of a test set.

    Parameters
    ----------
    runs : list of Run
    table : pd.DataFrame
        From :func:`~deepmd_mft.report.errors.error_table`.
    test : str

    Returns
    -------
    dict or None
        ``columns`` (strategies), ``metrics`` (heading, rows of folds, mean and spread),
        ``differences``; None if there are no folds.
    """
    metrics = CLASSES if runs[0].classes else NUMBERS
    own = table[table["test"] == test]
    each = by_fold(own, KEYS, [metric for metric, _ in metrics if metric in own])
    folds = sorted(each["fold"].unique())
    if len(folds) < 2:
        return None
    columns = _columns(each)
    fewest = int(own["structures"].min())
    several = len({key[1] for key in columns}) > 1
    shown = []
    for metric, heading in metrics:
        if metric not in each or each[metric].isna().all():
            continue
        place = {(row.strategy, row.labels, row.fold): row[metric] for _, row in each.iterrows()}
        rows = [
            {"fold": fold, "cells": [_cell(place.get((*key, fold)), fewest) for key in columns]}
            for fold in folds
        ]
        means = []
        for key in columns:
            values = np.array([place[(*key, fold)] for fold in folds if (*key, fold) in place])
            mean = digits(values.mean(), fewest)
            places = len(mean.partition(".")[2])
            spread = f"{values.std():.{places}f}" if len(values) > 1 else ""
            means.append({"value": mean, "spread": spread})
        shown.append({"heading": heading, "rows": rows, "means": means})
    return {
        "test": test,
        "columns": [_heading(key, several=several) for key in columns],
        "metrics": shown,
        "open": len(folds) <= MOST_OPEN,
        "differences": _differences_in_words(differences(own), fewest, several=several),
    }


def _columns(each: pd.DataFrame) -> list[tuple[str, int]]:
    order = [*BASELINES, *STRATEGIES]
    keys = {(row.strategy, int(row.labels)) for row in each.itertuples()}
    return sorted(keys, key=lambda key: (order.index(key[0]), key[1]))


def _heading(key: tuple[str, int], *, several: bool) -> str:
    name = {"mean": "mean", "composition": "composition", "majority": "majority"}.get(key[0])
    shown = name or key[0].upper().replace("SCRATCH", "scratch")
    return f"{shown} {key[1]}" if several else shown


def _cell(value: float | None, structures: int) -> str:
    return "" if value is None or np.isnan(value) else digits(value, structures)


def differences(table: pd.DataFrame) -> pd.DataFrame:
    """Compare all pairs of strategies that have two or more folds in common.

    Parameters
    ----------
    table : pd.DataFrame
        Errors, one row for each run and set.

    Returns
    -------
    pd.DataFrame
        A row for each test set, number of labels, pair and metric; columns as of
        :func:`~deepmd_mft.evaluation.aggregate.difference`: errors of ``strategy`` minus those of
        ``base``.
    """
    metrics = [m for m in (*REGRESSION, *OF_CLASSES) if m in table]
    each = by_fold(table[table["strategy"].isin(STRATEGIES)], KEYS, metrics)
    rows = []
    for (test, labels), part in each.groupby(["set", "labels"], sort=False):
        ratio = _test_ratio(table[table["test"] == test], labels)
        tables = {name: one.set_index("fold") for name, one in part.groupby("strategy")}
        for base, strategy in combinations([name for name in STRATEGIES if name in tables], 2):
            common = tables[strategy].index.intersection(tables[base].index)
            if len(common) < 2:
                continue
            for metric in metrics:
                mine, other = (tables[name].loc[common, metric] for name in (strategy, base))
                if mine.isna().any() or other.isna().any():
                    continue
                found = difference(mine.to_numpy(float), other.to_numpy(float), ratio, metric)
                keys = {"set": test, "labels": labels, "strategy": strategy, "base": base}
                rows.append({**keys, "metric": metric, **found})
    names = ["folds", "mean", "std", "low", "high", "better"]
    return pd.DataFrame(rows, columns=["set", "labels", "strategy", "base", "metric", *names])


def _test_ratio(table: pd.DataFrame, labels: int) -> float:
    """Return test structures per training structure, mean over folds; NaN if not known."""
    if labels < 1:
        return np.nan
    return float(table.drop_duplicates("set")["structures"].mean() / labels)


def _differences_in_words(
    found: pd.DataFrame, structures: int, *, several: bool
) -> list[dict[str, str]]:
    shown = []
    headings = dict((*NUMBERS, *CLASSES))
    wanted = found[found["metric"].isin(headings)]
    by_heading = wanted["metric"].map(list(headings).index)
    for row in wanted.assign(place=by_heading).sort_values("place", kind="stable").itertuples():
        places = max(0, len(digits(max(abs(row.mean), row.std), structures).partition(".")[2]))
        held = not row.low <= 0 <= row.high
        shown.append(
            {
                "pair": f"{_heading((row.strategy, row.labels), several=several)} - "
                f"{_heading((row.base, row.labels), several=several)}",
                "metric": headings[row.metric],
                "mean": f"{row.mean:+.{places}f}",
                "spread": f"{row.std:.{places}f}",
                "interval": ""
                if np.isnan(row.low)
                else f"{row.low:+.{places}f} to {row.high:+.{places}f}",
                "better": f"{row.better} of {row.folds}",
                "words": "" if held or np.isnan(row.low) else "cannot be told apart",
            }
        )
    return shown


def write_folds(table: pd.DataFrame, folder: Path) -> None:
    """Write ``folds.csv`` and ``differences.csv``, if there are folds."""
    metrics = [metric for metric in (*REGRESSION, *OF_CLASSES) if metric in table]
    found = over_folds(table, KEYS, metrics)
    if not found.empty:
        found.to_csv(folder / "folds.csv", index=False)
        differences(table).to_csv(folder / "differences.csv", index=False)


def text_table(table: pd.DataFrame, *, classes: bool) -> str:
    """Return mean and standard deviation over folds as text; empty without folds."""
    metrics = [metric for metric, _ in (CLASSES if classes else NUMBERS) if metric in table]
    order = [*BASELINES, *STRATEGIES]
    found = over_folds(table, KEYS, metrics)
    found = found.sort_values(
        ["set", "strategy", "labels"],
        key=lambda column: column.map(order.index) if column.name == "strategy" else column,
    )
    for metric in metrics:
        pairs = zip(found.pop(f"{metric}_mean"), found.pop(f"{metric}_std"), strict=True)
        found[metric] = [f"{mean:.4g} ± {std:.2g}" for mean, std in pairs]
    return "" if found.empty else str(found.to_string(index=False))
