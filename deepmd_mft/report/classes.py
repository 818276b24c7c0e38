"""What a report shows of classes: which are taken for which, and how sure the model is of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from deepmd_mft.evaluation.folds import without_fold
from deepmd_mft.evaluation.metrics import class_probabilities
from deepmd_mft.report.strategy import STRATEGIES
from deepmd_mft.uncertainty.class_score import reliability

if TYPE_CHECKING:
    from deepmd_mft.report.runs import Run

__all__ = ["Told", "absent_classes", "confusion_table", "reliability_table", "told_classes"]


@dataclass(frozen=True)
class Told:
    """What the runs of a strategy make of a test set, one after the other.

    Attributes
    ----------
    strategy, test : str
        The set without its fold.
    runs : int
    probability : np.ndarray
        Of each class, without calibration, nframes x classes.
    label : np.ndarray of int
        Class numbers, nframes.
    """

    strategy: str
    test: str
    runs: int
    probability: np.ndarray
    label: np.ndarray


def told_classes(runs: list[Run]) -> list[Told]:
    """Return the predictions of every strategy and test set; those that are NaN are left out."""
    parts: dict[tuple[str, str], list[tuple[str, np.ndarray, np.ndarray]]] = {}
    for run in runs:
        for name in run.sets:
            logits, label = run.values(name)
            if not len(label) or not np.isfinite(logits).all():
                continue
            own = (run.folder.name, class_probabilities(logits), label[:, 0].astype(int))
            parts.setdefault((run.strategy, without_fold(name)), []).append(own)
    return [
        Told(
            *key,
            len({name for name, _, _ in parts[key]}),
            np.concatenate([probability for _, probability, _ in parts[key]]),
            np.concatenate([label for _, _, label in parts[key]]),
        )
        for key in sorted(parts, key=lambda one: list(STRATEGIES).index(one[0]))
    ]


def confusion_table(told: list[Told]) -> pd.DataFrame:
    """Return how many structures of each class are taken for each, the runs together.

    Returns
    -------
    pd.DataFrame
        Columns ``strategy``, ``set``, ``runs``, ``label``, ``predicted``, ``structures`` and
        ``fraction`` of those with this label (NaN if there are none).
    """
    parts = []
    for one in told:
        classes = one.probability.shape[1]
        counts = np.zeros((classes, classes), dtype=int)
        np.add.at(counts, (one.label, one.probability.argmax(axis=1)), 1)
        label, predicted = (axis.ravel() for axis in np.indices(counts.shape))
        of_label = counts.sum(axis=1)[label]
        columns = {
            "strategy": one.strategy,
            "set": one.test,
            "runs": one.runs,
            "label": label,
            "predicted": predicted,
            "structures": counts.ravel(),
            "fraction": np.where(of_label, counts.ravel() / np.maximum(of_label, 1), np.nan),
        }
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def reliability_table(told: list[Told]) -> pd.DataFrame:
    """Return how often the predicted class is right by its probability, the runs together."""
    parts = []
    for one in told:
        part = reliability(one.probability, one.label)
        part.insert(0, "runs", one.runs)
        part.insert(0, "set", one.test)
        part.insert(0, "strategy", one.strategy)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def absent_classes(runs: list[Run]) -> list[str]:
    """Say which test sets lack a class, which leaves some numbers without a meaning."""
    notes = []
    for one in {told.test: told for told in told_classes(runs)}.values():
        classes = set(range(one.probability.shape[1]))
        absent = sorted(classes - set(one.label.tolist()))
        if absent:
            listed = f"class{'es' if len(absent) > 1 else ''} {', '.join(map(str, absent))}"
            notes.append(
                f"no structure of {one.test} has {listed}: it has no ROC-AUC, and F1 only "
                "of what occurs"
            )
    return notes
