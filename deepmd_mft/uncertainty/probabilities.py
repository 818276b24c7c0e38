"""Calibrated probabilities of classes, from validation data.

Of an ensemble the probabilities are averaged first and calibrated then: means of calibrated ones
are not calibrated (Rahaman and Thiery, arXiv 2007.08792).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import softmax
from scipy.stats import entropy
from sklearn.isotonic import IsotonicRegression

from deepmd_mft.errors import UserError
from deepmd_mft.evaluation.metrics import class_probabilities
from deepmd_mft.uncertainty.calibration import Calibration

if TYPE_CHECKING:
    from deepmd_mft.uncertainty.estimate import Looked, Reference

__all__ = [
    "PROBABILITIES",
    "ClassCalibration",
    "best_temperature",
    "mean_probabilities",
    "tempered",
]

#: What probabilities are shown; the first is the preferred.
PROBABILITIES = ("temperature", "isotonic", "raw")
#: Temperatures that are looked at: those outside give nothing but certainty, or nothing but doubt.
COLDEST, HOTTEST = 0.05, 20.0

#: A curve through points (x, y), constant outside.
Curve = tuple[np.ndarray, np.ndarray]


def mean_probabilities(looked: Looked) -> np.ndarray:
    """Return the probabilities of the classes, means over the models, nframes x classes."""
    return np.asarray(np.mean([class_probabilities(one) for one in looked.predictions], axis=0))


def tempered(probability: np.ndarray, temperature: float) -> np.ndarray:
    """Return softmax(log p / T): of one model the softmax of its logits over T."""
    return np.asarray(softmax(_log(probability) / temperature, axis=1))


def best_temperature(probability: np.ndarray, label: np.ndarray) -> float:
    """Return the temperature of the highest likelihood.

    The negative log-likelihood is convex in 1/T (its derivative by 1/T is the mean of
    sum_k p_k log q_k - log q_label, with p tempered and q not), so that there is one minimum.

    Parameters
    ----------
    probability : np.ndarray
        nframes x classes.
    label : np.ndarray of int
        Class numbers, nframes.

    Returns
    -------
    float
        Between :data:`COLDEST` (every label is the most probable class) and :data:`HOTTEST`
        (probabilities that are worse than none).
    """
    logs = _log(probability)
    of_label = logs[np.arange(len(label)), label]

    def slope(inverse: float) -> float:
        expected = (softmax(inverse * logs, axis=1) * logs).sum(axis=1)
        return float(np.mean(expected - of_label))

    if slope(1 / COLDEST) <= 0:
        return COLDEST
    if slope(1 / HOTTEST) >= 0:
        return HOTTEST
    return float(1 / brentq(slope, 1 / HOTTEST, 1 / COLDEST))


def isotonic_curves(probability: np.ndarray, label: np.ndarray) -> list[Curve]:
    """Return for each class how often it is right at a probability, by isotonic regression.

    Each class against the others; of two classes only class 1. No probability is below
    1/(n + 2) for n structures, as in Platt's scaling: isotonic regression gives zero where no
    structure has the class, and one new one that has would cost infinity.
    """
    least = 1 / (len(label) + 2)
    curves = []
    for number in range(probability.shape[1]):
        fitted = IsotonicRegression(y_min=least, y_max=1 - least, out_of_bounds="clip")
        fitted.fit(probability[:, number], label == number)
        curves.append((fitted.X_thresholds_, fitted.y_thresholds_))
    return curves[1:] if len(curves) == 2 else curves


def follow(probability: np.ndarray, curves: list[Curve]) -> np.ndarray:
    """Return the probabilities on the curves of :func:`isotonic_curves`, with a sum of 1."""
    if len(curves) == 1:
        of_one = np.interp(probability[:, 1], *curves[0])
        return np.stack([1 - of_one, of_one], axis=1)
    found = [np.interp(probability[:, number], *curve) for number, curve in enumerate(curves)]
    return np.asarray(found / np.sum(found, axis=0)).T


def _log(probability: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(probability, np.finfo(float).tiny))


@dataclass
class ClassCalibration(Calibration):
    """Of models that predict classes.

    Parameters
    ----------
    temperature : float
    curves : list of tuple
        As :func:`isotonic_curves` returns them.
    """

    temperature: float
    curves: list[Curve]

    @classmethod
    def fit(
        cls,
        train: Looked,
        valid: Looked,
        label: np.ndarray,
        record: dict[str, Any],
        reference: Reference,
    ) -> ClassCalibration:
        """Find temperature and curves; see :class:`Calibration`.

        Raises
        ------
        UserError
            If a class does not occur.
        """
        del train
        truth = label[:, 0].astype(int)
        absent = sorted(set(range(record["num_classes"])) - set(truth.tolist()))
        if absent:
            raise UserError(
                f"no validation structure has class {', '.join(map(str, absent))} of "
                f"{record['columns'][0]} (classes 0 to {record['num_classes'] - 1}); probabilities "
                "of a class cannot be calibrated without it, give validation data that have all"
            )
        probability = mean_probabilities(valid)
        temperature = best_temperature(probability, truth)
        return cls(record, reference, temperature, isotonic_curves(probability, truth))

    def probability(self, looked: Looked, name: str) -> np.ndarray:
        """Return the probabilities of the classes, one of :data:`PROBABILITIES`."""
        found = mean_probabilities(looked)
        if name == "temperature":
            return tempered(found, self.temperature)
        return follow(found, self.curves) if name == "isotonic" else found

    def doubts(self, looked: Looked) -> dict[str, np.ndarray]:
        """Return the entropies of the probabilities."""
        return {
            f"entropy {name}": entropy(self.probability(looked, name), axis=1)
            for name in PROBABILITIES
        }

    def described(self) -> list[str]:
        """Return the temperature, and what is to be known of it."""
        note = ""
        if self.temperature == COLDEST:
            note = " (the lowest that is tried: hardly any validation structure is wrong)"
        elif self.temperature == HOTTEST:
            note = " (the highest that is tried: the models know nothing of these classes)"
        return [f"temperature {self.temperature:.4g}{note}"]

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what the file keeps of it beside record and reference."""
        curves = enumerate(self.curves)
        return {
            "temperature": np.array(self.temperature),
            **{f"curve:{number}": np.array(curve) for number, curve in curves},
        }

    @classmethod
    def of_arrays(
        cls, record: dict[str, Any], reference: Reference, found: dict[str, np.ndarray]
    ) -> ClassCalibration:
        """Return what :meth:`arrays` was made of."""
        count = sum(name.startswith("curve:") for name in found)
        curves = [
            (found[f"curve:{number}"][0], found[f"curve:{number}"][1]) for number in range(count)
        ]
        return cls(record, reference, float(found["temperature"]), curves)
