"""Tables of scores: how good intervals, standard deviations and distances are on labelled sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from deepmd_mft.errors import UserError
from deepmd_mft.uncertainty.estimate import DISTANCES
from deepmd_mft.uncertainty.score import SCORES, auroc, coverage, sparsification, width

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from deepmd_mft.structures.structure_set import StructureSet
    from deepmd_mft.uncertainty.calibrate import Calibration
    from deepmd_mft.uncertainty.estimate import Looked
    from deepmd_mft.uncertainty.models import Ensemble

__all__ = ["INSIDE", "score_table", "sparsification_table", "telling_table", "trust_tables"]

#: The set that the others are told from.
INSIDE = "id_test"


def score_table(kept: Calibration, looked: Looked, label: np.ndarray) -> pd.DataFrame:
    """Return a row of scores for each column and standard deviation.

    Parameters
    ----------
    kept : Calibration
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


def sparsification_table(kept: Calibration, looked: Looked, label: np.ndarray) -> pd.DataFrame:
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


def telling_table(kept: Calibration, inside: Looked, outside: Looked) -> pd.DataFrame:
    """Return the AUROC of telling one set from the other, for each std and distance."""
    found = {
        name: [distance(one, kept.reference) for one in (inside, outside)]
        for name, distance in DISTANCES.items()
    }
    for number, column in enumerate(kept.record["columns"]):
        for name in kept.scales:
            stds = [kept.std(one, name)[:, number] for one in (inside, outside)]
            found[f"{name} {column}" if len(kept.record["columns"]) > 1 else name] = stds
    rows = [{"score": name, "auroc": auroc(*pair)} for name, pair in found.items()]
    return pd.DataFrame(rows)


def trust_tables(
    ensemble: Ensemble, kept: Calibration, sets: Sequence[StructureSet]
) -> dict[str, pd.DataFrame]:
    """Return scores, sparsification curves and, where there is an ``id_test``, AUROC of each set.

    Raises
    ------
    UserError
        If no set has labels.
    """
    looked: dict[str, Looked] = {}
    parts: list[pd.DataFrame] = []
    curves: list[pd.DataFrame] = []
    for one in sets:
        label = _labels(ensemble, one)
        if not np.isfinite(label).any(axis=0).all():
            continue
        looked[one.name] = ensemble.look(one)
        for tables, made in ((parts, score_table), (curves, sparsification_table)):
            table = made(kept, looked[one.name], label)
            table.insert(0, "set", one.name)
            tables.append(table)
    if not parts:
        names = ", ".join(output.name for output in ensemble.outputs)
        raise UserError(f"no set has the label {names}, which --calibration is scored with")
    found = {"trust": pd.concat(parts), "sparsification": pd.concat(curves)}
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


def _labels(ensemble: Ensemble, one: StructureSet) -> np.ndarray:
    parts = []
    for output in ensemble.outputs:
        found = one.labels(output.name, output.columns)
        empty = np.full((len(one), output.columns), np.nan)
        parts.append(empty if found is None else found.reshape(empty.shape))
    return np.hstack(parts)
