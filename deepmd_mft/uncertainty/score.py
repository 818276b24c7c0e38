"""Scores of standard deviations, intervals and distances, against the labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import norm, spearmanr
from sklearn.metrics import roc_auc_score

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "SCORES",
    "auroc",
    "binned_errors",
    "coverage",
    "observed_coverage",
    "sparsification",
    "width",
]

#: Bins of the expected normalised calibration error.
BINS = 10


def coverage(label: np.ndarray, low: np.ndarray, high: np.ndarray) -> float:
    """Return the fraction of the labels inside their intervals."""
    return float(np.mean((label >= low) & (label <= high)))


def width(low: np.ndarray, high: np.ndarray) -> float:
    """Return the mean width of the intervals."""
    return float(np.mean(high - low))


def nll(error: np.ndarray, std: np.ndarray) -> float:
    """Return the mean negative log-likelihood of a normal distribution."""
    return float(np.mean(0.5 * np.log(2 * np.pi * std**2) + 0.5 * (error / std) ** 2))


def observed_coverage(error: np.ndarray, std: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return the fraction of labels in the central intervals that are to hold ``expected``."""
    needed = np.sort(2 * norm.cdf(np.abs(error / std)) - 1)  # coverage that just holds the label
    return np.asarray(np.searchsorted(needed, expected, side="right") / len(needed))


def miscalibration_area(error: np.ndarray, std: np.ndarray) -> float:
    """Return the area between expected and observed coverage of central intervals, 0 to 0.5."""
    expected = np.linspace(0, 1, 2001)
    return float(np.trapezoid(np.abs(observed_coverage(error, std, expected) - expected), expected))


def binned_errors(error: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Return root mean square of std and of errors in ten bins of equal size by std, bins x 2."""
    bins = np.array_split(np.argsort(std, kind="stable"), min(BINS, len(std)))
    return np.array([[np.sqrt(np.mean(one[rows] ** 2)) for one in (std, error)] for rows in bins])


def ence(error: np.ndarray, std: np.ndarray) -> float:
    """Return the expected normalised calibration error over :func:`binned_errors`."""
    expected, observed = binned_errors(error, std).T
    return float(np.mean(np.abs(expected - observed) / expected))


def spearman(error: np.ndarray, std: np.ndarray) -> float:
    """Return the rank correlation of absolute error and std; NaN if one does not vary."""
    if np.ptp(std) == 0 or np.ptp(np.abs(error)) == 0:
        return float("nan")
    return float(spearmanr(np.abs(error), std).statistic)


#: Scores of a standard deviation, each of error and std.
SCORES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "nll": nll,
    "miscalibration_area": miscalibration_area,
    "ence": ence,
    "spearman": spearman,
}


def auroc(inside: np.ndarray, outside: np.ndarray) -> float:
    """Return how well a score tells structures outside the distribution from those inside."""
    truth = np.r_[np.zeros(len(inside)), np.ones(len(outside))]
    return float(roc_auc_score(truth, np.r_[inside, outside]))


def sparsification(error: np.ndarray, std: np.ndarray, points: int = 20) -> np.ndarray:
    """Return the RMSE of what is left when the least certain structures are taken away.

    Returns
    -------
    np.ndarray
        points x 2: fraction taken away, RMSE of the rest.
    """
    sure = error[np.argsort(std, kind="stable")]
    taken = np.arange(points) / points
    left = np.maximum(len(sure) - np.floor(taken * len(sure)).astype(int), 1)
    return np.array(
        [(t, np.sqrt(np.mean(sure[:n] ** 2))) for t, n in zip(taken, left, strict=True)]
    )
