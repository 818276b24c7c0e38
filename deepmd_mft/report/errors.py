"""Errors of runs by set, trivial baselines beside them, and differences with paired intervals."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from deepmd_mft.errors import UserError
from deepmd_mft.evaluation.aggregate import mean
from deepmd_mft.evaluation.folds import without_fold
from deepmd_mft.evaluation.metrics import interval, intervals, measure
from deepmd_mft.report.strategy import STRATEGIES
from deepmd_mft.structures.pooling import Pooling
from deepmd_mft.structures.structure_set import StructureSet

if TYPE_CHECKING:
    from deepmd_mft.report.runs import Run

#: Predictions without a network, in the order of the table.
BASELINES = {
    "mean": "mean of the training labels",
    "composition": "least squares per element",
    "majority": "most frequent training class",
}


@lru_cache(maxsize=8)
def structures_at(folders: tuple[Path, ...], type_map: tuple[str, ...]) -> StructureSet:
    """Return the structures of folders; read once for all runs that share them."""
    return StructureSet("", list(folders)).with_type_map(list(type_map))


def kind_of_set(name: str) -> str:
    """Return ID or OOD by the name of a set, or the name itself, without its fold."""
    own = without_fold(name)
    return next((kind.upper() for kind in ("ood", "id") if own.startswith(kind)), own)


def error_table(runs: list[Run]) -> pd.DataFrame:
    """Return errors and intervals, one row for each run and set, of the baselines too.

    Returns
    -------
    pd.DataFrame
        Columns ``run``, ``strategy`` (or a baseline), ``labels`` (-1 if unknown), ``set`` (of
        folds FOLD/SET), ``test`` (without the fold), ``kind`` (ID, OOD), ``structures``, the
        metrics and their bounds, ``improvement_percent`` over the mean of the runs from scratch.
    """
    rows: list[dict[str, Any]] = []
    trained: set[tuple[int | None, str]] = set()
    for run in runs:
        for name in run.sets:
            prediction, label = run.values(name)
            if not len(label):
                continue
            keys = {
                "labels": -1 if run.training.labels is None else run.training.labels,
                "set": name,
                "test": without_fold(name),
                "kind": kind_of_set(name),
                "structures": len(label),
            }
            rows.append(
                {
                    "run": run.folder.name,
                    "strategy": run.strategy,
                    **keys,
                    **measure(prediction, label, classes=run.classes),
                    **intervals(prediction, label, classes=run.classes),
                }
            )
            if (run.training.labels, name) not in trained:
                trained.add((run.training.labels, name))
                rows += [
                    {"run": "", "strategy": kind, **keys, **numbers}
                    for kind, numbers in _baselines(run, name).items()
                ]
    if not rows:
        raise UserError("no run has predictions with labels; there is nothing to compare")
    table = pd.DataFrame(rows)
    if not runs[0].classes:
        scratch = table[table["strategy"] == "scratch"].groupby(["labels", "set"])["rmse"].agg(mean)
        places = zip(table["labels"], table["set"], strict=True)
        base = np.array([scratch.get(place, np.nan) for place in places])
        table["improvement_percent"] = 100 * (1 - table["rmse"] / base)
    return table


def _baselines(run: Run, name: str) -> dict[str, dict[str, float]]:
    """Return the errors of what needs no network, as far as the training data are known."""
    _, label = run.values(name)
    found = {}
    if run.classes:
        majority = _majority(run)
        if majority is not None:
            right = (label[:, 0] == majority).astype(float)
            low, high = interval(right, statistic=np.mean)
            found["majority"] = {
                "accuracy": float(right.mean()),
                "accuracy_low": low,
                "accuracy_high": high,
            }
        return found
    guesses = {"mean": np.full(label.shape, run.training.mean)}
    composed = composition_baseline(run, name)
    if composed is not None:
        guesses["composition"] = composed
    for kind, guess in guesses.items():
        if np.isfinite(guess).all():
            found[kind] = measure(guess, label, classes=False) | intervals(
                guess, label, classes=False
            )
    return found


def _majority(run: Run) -> float | None:
    if not run.training.systems:
        return None
    train = Pooling(structures_at(tuple(run.training.systems), run.type_map)).structures
    label = train.labels(run.property_name, 1)
    if label is None:
        return None
    classes, counts = np.unique(label[np.isfinite(label)], return_counts=True)
    return float(classes[counts.argmax()])


def composition_baseline(run: Run, name: str) -> np.ndarray | None:
    """Return predictions by least squares on the composition, fitted to the training labels.

    The label is a sum over atoms of a number per element (the mean over atoms, for an intensive
    property); an element without a training structure gets the mean number.

    Returns
    -------
    np.ndarray or None
        nframes x 1, for the labelled structures of the set; None if the structures are not there.
    """
    folders = tuple(Path(one["path"]) for one in run.record["sets"][name]["folders"])
    if not run.training.systems or not all(folder.is_dir() for folder in folders):
        return None
    places = (tuple(run.training.systems), folders)
    train, test = (Pooling(structures_at(one, run.type_map)) for one in places)
    label = train.structures.labels(run.property_name, 1)
    rows = run.predictions[run.predictions["set"] == name]
    if label is None or len(test.structures) != len(rows):
        return None
    known = np.isfinite(label[:, 0])
    features = _composition(train, intensive=run.intensive)[known]
    seen = features.any(axis=0)
    numbers = np.zeros(features.shape[1])
    numbers[seen] = np.linalg.lstsq(features[:, seen], label[known, 0], rcond=None)[0]
    numbers[~seen] = numbers[seen].mean()
    predicted = _composition(test, intensive=run.intensive) @ numbers
    return np.asarray(predicted[np.isfinite(rows["label"].to_numpy())][:, None])


def _composition(pooling: Pooling, *, intensive: bool) -> np.ndarray:
    """Return the atoms of each element, nframes x 119, as fractions for an intensive property.

    Where labels belong to groups, their means, ngroups x 119.
    """
    every = [np.bincount(one.numbers, minlength=119) for one in pooling.frames]
    counts = np.array(every, dtype=float)
    return pooling.mean(counts / counts.sum(axis=1, keepdims=True) if intensive else counts)


@dataclass(frozen=True)
class Gain:
    """How much better than from scratch a strategy is on a set.

    Attributes
    ----------
    strategy, test : str
    labels : int
    mean, low, high : float
        Lower RMSE in percent (of classes: accuracy in points), 95 % interval paired over
        structures.
    each : list of float
        Of every run.
    """

    strategy: str
    test: str
    labels: int
    mean: float
    low: float
    high: float
    each: list[float]

    @property
    def told_apart(self) -> bool:
        """Whether the interval leaves out zero, and all runs are on one side of it."""
        outside = self.low > 0 or self.high < 0
        return outside and (min(self.each) > 0 or max(self.each) < 0)


def gains(runs: list[Run]) -> list[Gain]:
    """Return the gains over scratch of every strategy and number of labels, set by set.

    Structures are drawn, the same for both strategies: the losses of a structure are means over
    the runs of a strategy. Of folds, those that both were evaluated on are taken together.
    """
    found = []
    classes = runs[0].classes
    for labels in sorted({run.training.labels or -1 for run in runs}):
        of_size = [run for run in runs if (run.training.labels or -1) == labels]
        base = _losses([run for run in of_size if run.strategy == "scratch"])
        for strategy in STRATEGIES:
            own = [run for run in of_size if run.strategy == strategy]
            if strategy == "scratch" or not own or not base or labels < 0:
                continue
            mine = _losses(own)
            tests = dict.fromkeys(without_fold(name) for name in mine if name in base)
            for test in tests:
                names = [n for n in mine if without_fold(n) == test and n in base]
                gain = _gain(
                    np.concatenate([np.mean(mine[n], axis=0) for n in names]),
                    np.concatenate([np.mean(base[n], axis=0) for n in names]),
                    classes=classes,
                )
                each = [
                    _better(one, np.mean(base[n], axis=0), classes=classes)
                    for n in names
                    for one in mine[n]
                ]
                found.append(Gain(strategy, test, labels, *gain, each))
    return found


def _losses(runs: list[Run]) -> dict[str, list[np.ndarray]]:
    """Return by set the loss of every structure in each run: squared errors, or wrong classes.

    Sets for which a run predicts something that is no number are left out.
    """
    found: dict[str, list[np.ndarray]] = {}
    for run in runs:
        every = run.losses()
        for name in run.sets:
            labelled = np.isfinite(run.predictions["label"]) & (run.predictions["set"] == name)
            loss = every[labelled]
            if len(loss):
                found.setdefault(name, []).append(loss)
    return {name: own for name, own in found.items() if np.isfinite(own).all()}


def _better(mine: np.ndarray, base: np.ndarray, *, classes: bool, axis: int = -1) -> Any:
    one, other = mine.mean(axis=axis), base.mean(axis=axis)
    return 100 * (other - one) if classes else 100 * (1 - np.sqrt(one / other))


def _gain(mine: np.ndarray, base: np.ndarray, *, classes: bool) -> tuple[float, float, float]:
    def statistic(one: np.ndarray, other: np.ndarray, axis: int) -> np.ndarray:
        return np.asarray(_better(one, other, classes=classes, axis=axis))

    low, high = interval(mine, base, statistic=statistic)
    return float(_better(mine, base, classes=classes)), low, high


def gains_table(found: list[Gain]) -> pd.DataFrame:
    """Return gains as a table, one row for each strategy, number of labels and set."""
    columns = ["strategy", "labels", "set", "gain", "gain_low", "gain_high", "told_apart", "runs"]
    rows = [
        (g.strategy, g.labels, g.test, g.mean, g.low, g.high, g.told_apart, len(g.each))
        for g in found
    ]
    return pd.DataFrame(rows, columns=columns)


def digits(value: float, structures: int) -> str:
    """Return an error with as many digits as so many structures can tell.

    The relative uncertainty of an RMSE of n errors is about 1 / sqrt(2 n): two digits below 200
    structures, three below 20,000, four above.
    """
    if not np.isfinite(value):
        return "nan"
    kept = 2 if structures < 200 else 3 if structures < 20_000 else 4
    places = kept - 1 - (int(np.floor(np.log10(abs(value)))) if value else 0)
    return f"{value:.{max(0, places)}f}"
