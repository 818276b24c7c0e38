"""Scores of the probabilities of classes, against the labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CLASS_SCORES", "brier", "ece", "reliability"]

#: Bins of the confidence, of equal width from 0 to 1.
BINS = 10


def nll(probability: np.ndarray, label: np.ndarray) -> float:
    """Return the mean negative log-likelihood, the cross entropy.

    Parameters
    ----------
    probability : np.ndarray
        nframes x classes.
    label : np.ndarray of int
        Class numbers, nframes.
    """
    of_label = probability[np.arange(len(label)), label]
    return float(-np.log(np.maximum(of_label, np.finfo(float).tiny)).mean())


def brier(probability: np.ndarray, label: np.ndarray) -> float:
    """Return the score of Brier (1950): squared errors summed over the classes, 0 to 2.

    For two classes this is twice what is also called so, the squared error of one of them.
    """
    truth = np.eye(probability.shape[1])[label]
    return float(((probability - truth) ** 2).sum(axis=1).mean())


def accuracy(probability: np.ndarray, label: np.ndarray) -> float:
    """Return the fraction whose most probable class is the label."""
    return float(np.mean(probability.argmax(axis=1) == label))


def reliability(probability: np.ndarray, label: np.ndarray) -> pd.DataFrame:
    """Return how often the most probable class is right, by its probability (the confidence).

    Returns
    -------
    pd.DataFrame
        A row for each bin that has structures: ``from`` (excluded), ``to``, mean ``confidence``,
        fraction ``right``, number of ``structures``.
    """
    confidence = probability.max(axis=1)
    right = probability.argmax(axis=1) == label
    which = np.clip(np.ceil(confidence * BINS).astype(int), 1, BINS)
    rows = [
        {
            "from": (number - 1) / BINS,
            "to": number / BINS,
            "confidence": confidence[which == number].mean(),
            "right": right[which == number].mean(),
            "structures": int((which == number).sum()),
        }
        for number in np.unique(which).tolist()
    ]
    return pd.DataFrame(rows)


def ece(probability: np.ndarray, label: np.ndarray) -> float:
    """Return the expected calibration error over the bins of :func:`reliability`.

    Guo et al., arXiv 1706.04599: the mean of the absolute difference of confidence and fraction
    right, weighted with the structures of the bin.
    """
    table = reliability(probability, label)
    apart = np.abs(table["confidence"] - table["right"])
    return float(np.average(apart, weights=table["structures"]))


#: Scores of probabilities, each of nframes x classes and the labels.
CLASS_SCORES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "nll": nll,
    "brier": brier,
    "ece": ece,
    "accuracy": accuracy,
}
