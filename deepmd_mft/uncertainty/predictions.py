"""The table of predictions, one row for each structure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
from scipy.stats import entropy

from deepmd_mft.errors import UserError
from deepmd_mft.uncertainty.estimate import DISTANCES, STDS, nearest, usable_stds
from deepmd_mft.uncertainty.intervals import IntervalCalibration, why_not
from deepmd_mft.uncertainty.probabilities import ClassCalibration, mean_probabilities

if TYPE_CHECKING:
    from deepmd_mft.uncertainty.calibration import Calibration
    from deepmd_mft.uncertainty.estimate import Looked
    from deepmd_mft.uncertainty.models import Ensemble

__all__ = ["prediction_table"]


def prediction_table(
    ensemble: Ensemble,
    looked: Looked,
    kept: Calibration | None,
    *,
    std: str | None = None,
    interval: str | None = None,
    probabilities: str | None = None,
) -> pd.DataFrame:
    """Return what is predicted and, with a calibration, how far the training set is.

    Parameters
    ----------
    ensemble : Ensemble
    looked : Looked
        What it makes of the structures.
    kept : Calibration, optional
    std, interval : str, optional
        Of numbers: which standard deviation (the first that there is) and interval (normalised).
    probabilities : str, optional
        Of classes: which ones; tempered if there is a calibration.

    Raises
    ------
    UserError
        If there is no such standard deviation or no such probability.
    """
    if ensemble.num_classes:
        classes = kept if isinstance(kept, ClassCalibration) else None
        found = _class_columns(looked, ensemble.columns[0], classes, probabilities)
    else:
        numbers = kept if isinstance(kept, IntervalCalibration) else None
        found = _number_columns(looked, ensemble.columns, numbers, std, interval or "normalised")
    if kept is not None:
        for name, distance in DISTANCES.items():
            found[f"ood_{name}"] = distance(looked, kept.reference)
        found["nearest_training_structure"] = nearest(looked, kept.reference)
    return pd.DataFrame(found)


def _number_columns(
    looked: Looked,
    columns: list[str],
    kept: IntervalCalibration | None,
    wanted: str | None,
    interval: str,
) -> dict[str, object]:
    usable = usable_stds(looked, calibrated=kept is not None)
    std = wanted or next(iter(usable), None)
    if wanted and wanted not in usable:
        raise UserError(f"no {wanted} here: {why_not(wanted, len(looked.predictions))}")
    found: dict[str, object] = {}
    for number, column in enumerate(columns):
        found[column] = looked.mean[:, number]
        if kept is not None and std is not None:
            low, high = kept.interval(looked, std, interval)
            found[f"{column}_std"] = kept.std(looked, std)[:, number]
            found[f"{column}_low"], found[f"{column}_high"] = low[:, number], high[:, number]
        elif std is not None:
            found[f"{column}_std"] = STDS[std](looked, None)[:, number]
    return found


def _class_columns(
    looked: Looked, column: str, kept: ClassCalibration | None, wanted: str | None
) -> dict[str, object]:
    name = wanted or ("raw" if kept is None else "temperature")
    if kept is None and name != "raw":
        raise UserError(
            f"--probabilities {name} needs a calibration (--calibration FILE of `dp-mft calibrate`)"
        )
    found = mean_probabilities(looked) if kept is None else kept.probability(looked, name)
    return {
        column: found.argmax(axis=1),
        **{f"{column}_p{number}": found[:, number] for number in range(found.shape[1])},
        f"{column}_entropy": entropy(found, axis=1),
        "probabilities": name,
    }
