"""Standard deviations and intervals of models that predict numbers, from validation data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import norm

from deepmd_mft.errors import UserError
from deepmd_mft.uncertainty.calibration import Calibration
from deepmd_mft.uncertainty.estimate import (
    STDS,
    Fitted,
    laplace,
    positive,
    usable_stds,
    variance_prior,
)
from deepmd_mft.uncertainty.score import nll

if TYPE_CHECKING:
    from collections.abc import Callable

    from deepmd_mft.uncertainty.estimate import Looked, Reference

__all__ = ["INTERVALS", "IntervalCalibration", "conformal_quantile", "why_not"]

#: Ridges of the last-layer Laplace that are tried, in mean eigenvalues of F^T F.
RIDGES = 10.0 ** np.arange(-9.0, 0.5)


def conformal_quantile(scores: np.ndarray, coverage: float) -> np.ndarray:
    """Return the quantile of each column that split conformal prediction takes.

    Parameters
    ----------
    scores : np.ndarray
        nframes x columns.
    coverage : float
        Fraction of new labels that shall be within.

    Raises
    ------
    UserError
        If there are too few structures for this coverage.
    """
    n = len(scores)
    rank = math.ceil((n + 1) * coverage - 1e-9)
    if rank > n:
        raise UserError(
            f"{n} validation structures are too few for intervals of coverage {coverage:g}; give "
            f"{math.ceil(coverage / (1 - coverage) - 1e-9)} or more"
        )
    return np.asarray(np.sort(scores, axis=0)[rank - 1])


def z_scale(error: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Return the factor of std that makes the squared error of each column what it says."""
    return np.asarray(np.sqrt(np.mean((error / std) ** 2, axis=0)))


def _absolute(error: np.ndarray, _std: np.ndarray, coverage: float) -> np.ndarray:
    return conformal_quantile(np.abs(error), coverage)


def _normalised(error: np.ndarray, std: np.ndarray, coverage: float) -> np.ndarray:
    return conformal_quantile(np.abs(error) / std, coverage)


def _gaussian(error: np.ndarray, std: np.ndarray, coverage: float) -> np.ndarray:
    return np.asarray(norm.ppf(0.5 + coverage / 2) * z_scale(error, std))


#: Half the width of intervals, each of error, std and coverage; ``absolute`` is it already, the
#: others are a factor of std.
INTERVALS: dict[str, Callable[[np.ndarray, np.ndarray, float], np.ndarray]] = {
    "absolute": _absolute,
    "normalised": _normalised,
    "gaussian": _gaussian,
}


@dataclass
class IntervalCalibration(Calibration):
    """Of models that predict numbers.

    Parameters
    ----------
    fitted : Fitted
    scales : dict
        By the name of a standard deviation, its factor for each column.
    halves : dict
        By standard deviation and interval, as :data:`INTERVALS` returns them.
    """

    fitted: Fitted
    scales: dict[str, np.ndarray]
    halves: dict[tuple[str, str], np.ndarray]

    @classmethod
    def fit(
        cls,
        train: Looked,
        valid: Looked,
        label: np.ndarray,
        record: dict[str, Any],
        reference: Reference,
    ) -> IntervalCalibration:
        """Calibrate every standard deviation that the models have; see :class:`Calibration`.

        ``coverage`` of the record is that of the intervals.
        """
        error = valid.mean - label
        moments = [features.T @ features for features in train.last]
        own = zip(valid.last, moments, valid.predictions, strict=True)
        ridge = [
            _best_ridge(features, moment, one - label, np.asarray(valid.sizes))
            for features, moment, one in own
        ]
        fitted = Fitted(moments, ridge, variance_prior(valid.predictions))
        scales, halves = {}, {}
        for name in usable_stds(valid, calibrated=True):
            std = positive(STDS[name](valid, fitted))
            scales[name] = z_scale(error, std)
            for kind, half in INTERVALS.items():
                halves[name, kind] = half(error, std, record["coverage"])
        return cls(record, reference, fitted, scales, halves)

    def std(self, looked: Looked, name: str) -> np.ndarray:
        """Return the calibrated standard deviation, nframes x columns."""
        if name not in self.scales:
            raise UserError(
                f"the calibration has no {name}, but {', '.join(self.scales)}; "
                + why_not(name, len(looked.predictions))
            )
        return np.asarray(positive(STDS[name](looked, self.fitted)) * self.scales[name])

    def interval(self, looked: Looked, name: str, kind: str) -> tuple[np.ndarray, np.ndarray]:
        """Return lower and upper ends, nframes x columns each."""
        std = self.std(looked, name) / self.scales[name]
        half = self.halves[name, kind] * (np.ones_like(std) if kind == "absolute" else std)
        return looked.mean - half, looked.mean + half

    def doubts(self, looked: Looked) -> dict[str, np.ndarray]:
        """Return the standard deviations, of each column."""
        columns = self.record["columns"]
        stds = {name: self.std(looked, name) for name in self.scales}
        return {
            f"{name} {column}" if len(columns) > 1 else name: stds[name][:, number]
            for number, column in enumerate(columns)
            for name in stds
        }

    def described(self) -> list[str]:
        """Return the factors of the standard deviations, and the coverage."""
        factors = [
            f"{name:10} times {', '.join(f'{one:.4g}' for one in scale)}"
            for name, scale in self.scales.items()
        ]
        return [*factors, f"coverage {self.record['coverage']:g}"]

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what the file keeps of it beside record and reference."""
        moments = enumerate(self.fitted.second_moments)
        return {
            "ridge": np.array(self.fitted.ridge),
            "prior": self.fitted.prior,
            **{f"moment:{number}": values for number, values in moments},
            **{f"scale:{name}": values for name, values in self.scales.items()},
            **{f"half:{one}:{kind}": values for (one, kind), values in self.halves.items()},
        }

    @classmethod
    def of_arrays(
        cls, record: dict[str, Any], reference: Reference, found: dict[str, np.ndarray]
    ) -> IntervalCalibration:
        """Return what :meth:`arrays` was made of."""
        ridge = found["ridge"].tolist()
        moments = [found[f"moment:{number}"] for number in range(len(ridge))]
        scales = {k.split(":")[1]: v for k, v in found.items() if k.startswith("scale:")}
        halves = {
            (k.split(":")[1], k.split(":")[2]): v for k, v in found.items() if k.startswith("half:")
        }
        fitted = Fitted(moments, ridge, found["prior"])
        return cls(record, reference, fitted, scales, halves)


def _best_ridge(
    features: np.ndarray, moment: np.ndarray, error: np.ndarray, sizes: np.ndarray
) -> float:
    """Return the ridge of the highest likelihood on validation data, after z-scaling."""
    unit = float(np.trace(moment)) / len(moment)

    def loss(ridge: float) -> float:
        std = np.sqrt(laplace(features, moment, ridge))[:, None] * sizes
        return nll(error, std * z_scale(error, std))

    return float(min((unit * one for one in RIDGES.tolist()), key=loss))


def why_not(name: str, models: int) -> str:
    """Say what a standard deviation needs."""
    needs = {
        "ensemble": "an ensemble needs two models or more: train with another seed and give both"
        if models == 1
        else "calibrate these models together",
        "variance": "a variance head is trained with predict_variance and the loss gaussian_nll",
        "llpr": "the last-layer Laplace needs a calibration (--calibration)",
    }
    return needs[name]
