"""Tables of scores: how good intervals, standard deviations and distances are on labelled sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from deepmd_mft.errors import UserError
from deepmd_mft.structures.pooling import Pooling
from deepmd_mft.uncertainty.class_score import CLASS_SCORES, reliability
from deepmd_mft.uncertainty.estimate import DISTANCES
from deepmd_mft.uncertainty.probabilities import PROBABILITIES
from deepmd_mft.uncertainty.score import SCORES, auroc, coverage, sparsification, width

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from deepmd_mft.structures.structure_set import StructureSet
    from deepmd_mft.uncertainty.calibration import Calibration
    from deepmd_mft.uncertainty.estimate import Looked
    from deepmd_mft.uncertainty.intervals import IntervalCalibration
    from deepmd_mft.uncertainty.models import Ensemble
    from deepmd_mft.uncertainty.probabilities import ClassCalibration

__all__ = ["INSIDE", "score_table", "sparsification_table", "telling_table", "trust_tables"]

#: The set that the others are told from.
INSIDE = "id_test"


def score_table(kept: IntervalCalibration, looked: Looked, label: np.ndarray) -> pd.DataFrame:
    """Return a row of scores for each column and standard deviation.

    Parameters
    ----------
    kept : IntervalCalibration
    looked : Looked
        Of the set.
    label : np.ndarray
        nframes x columns; NaN where there is none.
    """
    rows = []
    for number, column in enumerate(kept.record["columns"]):
        there = np.isfinite(label[:, number])
        truth = label[there, number]
        error = looked.mean[there, number] - truth
        for name in kept.scales:
            row = {"column": column, "std": name, "structures": len(truth)}
            for kind in dict.fromkeys(kind for _, kind in kept.halves):
                low, high = (one[there, number] for one in kept.interval(looked, name, kind))
                row[f"coverage_{kind}"] = coverage(truth, low, high)
                row[f"width_{kind}"] = width(low, high)
            sigma = kept.std(looked, name)[there, number]
            rows.append(row | {one: score(error, sigma) for one, score in SCORES.items()})
    return pd.DataFrame(rows)


def sparsification_table(
    kept: IntervalCalibration, looked: Looked, label: np.ndarray
) -> pd.DataFrame:
    """Return the RMSE of what is left, for each column and standard deviation."""
    parts = []
    for number, column in enumerate(kept.record["columns"]):
        there = np.isfinite(label[:, number])
        error = looked.mean[there, number] - label[there, number]
        for name in kept.scales:
            curve = sparsification(error, kept.std(looked, name)[there, number])
            part = pd.DataFrame(curve, columns=["taken", "rmse"])
            part.insert(0, "std", name)
            part.insert(0, "column", column)
            parts.append(part)
    return pd.concat(parts, ignore_index=True)


def estimate_table(kept: IntervalCalibration, looked: Looked, label: np.ndarray) -> pd.DataFrame:
    """Return prediction, label, standard deviations and distances, a row per structure and column.

    Columns ``std_NAME`` and ``ood_NAME``, by the names of ``STDS`` and ``DISTANCES``.
    """
    stds = {f"std_{name}": kept.std(looked, name) for name in kept.scales}
    distances = {f"ood_{name}": one(looked, kept.reference) for name, one in DISTANCES.items()}
    parts = [
        pd.DataFrame(
            {
                "column": column,
                "label": label[:, number],
                "prediction": looked.mean[:, number],
                **{name: values[:, number] for name, values in stds.items()},
                **distances,
            }
        )
        for number, column in enumerate(kept.record["columns"])
    ]
    return pd.concat(parts, ignore_index=True)


def class_score_table(kept: ClassCalibration, looked: Looked, label: np.ndarray) -> pd.DataFrame:
    """Return a row of scores for each kind of probabilities.

    Parameters
    ----------
    kept : ClassCalibration
    looked : Looked
        Of the set.
    label : np.ndarray
        nframes x 1; NaN where there is none.
    """
    rows = []
    for name, probability, truth in _classes(kept, looked, label):
        row = {"column": kept.record["columns"][0], "probabilities": name, "structures": len(truth)}
        rows.append(row | {one: score(probability, truth) for one, score in CLASS_SCORES.items()})
    return pd.DataFrame(rows)


def reliability_table(kept: ClassCalibration, looked: Looked, label: np.ndarray) -> pd.DataFrame:
    """Return how often the predicted class is right, by its probability, for each kind of these."""
    parts = []
    for name, probability, truth in _classes(kept, looked, label):
        part = reliability(probability, truth)
        part.insert(0, "probabilities", name)
        part.insert(0, "column", kept.record["columns"][0])
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _classes(
    kept: ClassCalibration, looked: Looked, label: np.ndarray
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield by name the probabilities of the labelled structures, and their classes."""
    there = np.isfinite(label[:, 0])
    for name in PROBABILITIES:
        yield name, kept.probability(looked, name)[there], label[there, 0].astype(int)


def telling_table(kept: Calibration, inside: Looked, outside: Looked) -> pd.DataFrame:
    """Return the AUROC of telling one set from the other, for each distance and doubt."""
    found = {
        name: [distance(one, kept.reference) for one in (inside, outside)]
        for name, distance in DISTANCES.items()
    }
    doubts = [kept.doubts(one) for one in (inside, outside)]
    found |= {name: [one[name] for one in doubts] for name in doubts[0]}
    rows = [{"score": name, "auroc": auroc(*pair)} for name, pair in found.items()]
    return pd.DataFrame(rows)


#: Tables of a set, each of calibration, what the models make of the set, and labels.
OF_NUMBERS: dict[str, Callable[[Any, Looked, np.ndarray], pd.DataFrame]] = {
    "trust": score_table,
    "sparsification": sparsification_table,
    "estimates": estimate_table,
}
OF_CLASSES: dict[str, Callable[[Any, Looked, np.ndarray], pd.DataFrame]] = {
    "trust": class_score_table,
    "reliability": reliability_table,
}


def trust_tables(
    ensemble: Ensemble, kept: Calibration, sets: Sequence[StructureSet]
) -> dict[str, pd.DataFrame]:
    """Return the tables of :data:`OF_NUMBERS` or :data:`OF_CLASSES` and the AUROC of each set.

    The last, ``telling``, only where there is an ``id_test``.

    Raises
    ------
    UserError
        If no set has labels.
    """
    looked: dict[str, Looked] = {}
    makers = OF_CLASSES if ensemble.num_classes else OF_NUMBERS
    parts: dict[str, list[pd.DataFrame]] = {name: [] for name in makers}
    for one in sets:
        label = ensemble.labels(one)
        if not np.isfinite(label).any(axis=0).all():
            continue
        looked[one.name] = ensemble.look(one)
        for name, made in makers.items():
            table = made(kept, looked[one.name], label)
            if made is estimate_table:  # the other tables have no row per structure
                table.insert(0, "id", Pooling(one).structures.ids * len(ensemble.columns))
            table.insert(0, "set", one.name)
            parts[name].append(table)
    if not looked:
        names = ", ".join(output.name for output in ensemble.outputs)
        raise UserError(f"no set has the label {names}, which --calibration is scored with")
    found = {name: pd.concat(tables) for name, tables in parts.items()}
    told = []
    for name in (name for name in looked if INSIDE in looked and name != INSIDE):
        table = telling_table(kept, looked[INSIDE], looked[name])
        table.insert(0, "set", name)
        told.append(table)
    return found | ({"telling": pd.concat(told)} if told else {})


def write_tables(tables: dict[str, pd.DataFrame], folder: Path) -> None:
    """Write each as ``NAME.csv``."""
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False)
