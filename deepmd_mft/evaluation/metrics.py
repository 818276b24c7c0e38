"""Errors of predictions, with bootstrap intervals, and by element, size and target.

Conventions: the error is prediction minus label; R2 and ROC-AUC are scikit-learn's, Spearman's rho
scipy's. Structures without a label are left out; one prediction that is NaN makes every number NaN,
because an error over the rest would flatter the model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import stats
from scipy.special import expit, softmax
from sklearn import metrics as sk

from deepmd_mft.names import CLASSES, REGRESSION
from deepmd_mft.structures.elements import symbol

if TYPE_CHECKING:
    from collections.abc import Callable

    from deepmd_mft.structures.structure_set import StructureSet

#: Metrics of which a larger value is a better model.
LARGER_IS_BETTER = ("r2", "spearman", "accuracy", "roc_auc", "f1")


def regression(prediction: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """Return the errors of one set.

    Parameters
    ----------
    prediction, label : np.ndarray
        nframes x columns, in the unit of the label.

    Returns
    -------
    dict of str to float
        ``rmse``, ``mae`` and ``max_error`` over all entries, as ``dp --pt test`` takes them; ``r2``
        and ``spearman`` as means over the columns, NaN if the labels are constant.
    """
    if not len(label) or not np.isfinite(prediction).all():
        return dict.fromkeys(REGRESSION, np.nan)
    error = prediction - label
    varied = len(label) > 1 and (np.ptp(label, axis=0) > 0).all()
    ranked = varied and (np.ptp(prediction, axis=0) > 0).all()
    return {
        "rmse": float(np.sqrt(np.mean(error**2))),
        "mae": float(np.mean(np.abs(error))),
        "r2": float(sk.r2_score(label, prediction)) if varied else np.nan,
        "max_error": float(np.abs(error).max()),
        "spearman": float(
            np.mean([stats.spearmanr(p, y)[0] for p, y in zip(prediction.T, label.T, strict=True)])
        )
        if ranked
        else np.nan,
    }


def class_probabilities(logits: np.ndarray) -> np.ndarray:
    """Return the probability of each class, nframes x num_classes.

    Parameters
    ----------
    logits : np.ndarray
        One column, the logit of class 1 of two; or one per class.
    """
    if logits.shape[1] == 1:
        return expit(logits * [-1.0, 1.0])
    return np.asarray(softmax(logits, axis=1))


def classification(logits: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """Return the quality of classes.

    Parameters
    ----------
    logits : np.ndarray
        nframes x columns, see :func:`class_probabilities`.
    label : np.ndarray
        nframes x 1, class numbers.

    Returns
    -------
    dict of str to float
        ``accuracy``; ``roc_auc`` (one against the rest for more than two classes; NaN if a class
        does not occur); ``f1`` of class 1 (NaN if it does not occur), or its mean over the
        classes that occur; ``cross_entropy``.
    """
    if not len(label) or not np.isfinite(logits).all():
        return dict.fromkeys(CLASSES, np.nan)
    probability = class_probabilities(logits)
    truth, chosen = label[:, 0].astype(int), probability.argmax(axis=1)
    num_classes = probability.shape[1]
    every = list(range(num_classes))
    binary = num_classes == 2
    complete = len(np.unique(truth)) == num_classes
    scored = [one for one in ([1] if binary else every) if one in truth]
    scores = probability[:, 1] if binary else probability
    return {
        "accuracy": float(sk.accuracy_score(truth, chosen)),
        "roc_auc": float(sk.roc_auc_score(truth, scores, multi_class="ovr"))
        if complete
        else np.nan,
        "f1": float(sk.f1_score(truth, chosen, labels=scored, average="macro", zero_division=0))
        if scored
        else np.nan,
        "cross_entropy": float(sk.log_loss(truth, probability, labels=every)),
    }


def measure(prediction: np.ndarray, label: np.ndarray, *, classes: bool) -> dict[str, float]:
    """Return the metrics that fit the kind of label; structures without a label are left out."""
    known = np.isfinite(label).all(axis=1)
    function = classification if classes else regression
    return function(prediction[known], label[known])


def interval(
    *values: np.ndarray,
    statistic: Callable[..., np.ndarray],
    seed: int = 0,
    n_resamples: int = 1000,
) -> tuple[float, float]:
    """Return the bootstrap 95 % interval (percentiles) of a statistic over structures.

    Parameters
    ----------
    *values : np.ndarray
        One value per structure each, nframes; drawn together.
    statistic : callable
        Of these, over the last axis given as ``axis``.
    seed, n_resamples : int
        Of the draw.

    Returns
    -------
    low, high : float
        NaN for fewer than two structures, or a value that is not finite.
    """
    number = len(values[0])
    if number < 2 or not all(np.isfinite(one).all() for one in values):
        return np.nan, np.nan
    found = stats.bootstrap(
        values,
        statistic,
        paired=len(values) > 1,
        vectorized=True,
        method="percentile",
        n_resamples=n_resamples,
        batch=max(1, 2_000_000 // number),  # 16 MB at a time
        random_state=seed,
    ).confidence_interval
    return float(found.low), float(found.high)


def rms(squares: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return the root of the mean of squared errors."""
    return np.asarray(np.sqrt(np.mean(squares, axis=axis)))


def intervals(prediction: np.ndarray, label: np.ndarray, *, classes: bool) -> dict[str, float]:
    """Return ``<metric>_low`` and ``<metric>_high`` of RMSE and MAE, or of the accuracy."""
    known = np.isfinite(label).all(axis=1)
    prediction, label = prediction[known], label[known]
    if classes:
        right = class_probabilities(prediction).argmax(axis=1) == label[:, 0]
        bounds = {"accuracy": interval(right.astype(float), statistic=np.mean)}
        if not np.isfinite(prediction).all():
            bounds = {"accuracy": (np.nan, np.nan)}
    else:
        error = prediction - label
        bounds = {
            "rmse": interval(np.mean(error**2, axis=1), statistic=rms),
            "mae": interval(np.mean(np.abs(error), axis=1), statistic=np.mean),
        }
    return _bounds(bounds)


def _bounds(pairs: dict[str, tuple[float, float]]) -> dict[str, float]:
    return {
        f"{name}_{end}": value
        for name, pair in pairs.items()
        for end, value in zip(("low", "high"), pair, strict=True)
    }


def per_atom(
    prediction: np.ndarray, label: np.ndarray, natoms: np.ndarray
) -> tuple[dict[str, float], dict[str, float], np.ndarray]:
    """Return the errors of an atomic quantity such as forces, over all components.

    Parameters
    ----------
    prediction, label : np.ndarray
        natoms of the set x columns, the structures one after the other; NaN where there is no
        label.
    natoms : np.ndarray
        Atoms of every structure, nframes.

    Returns
    -------
    numbers : dict of str to float
        As :func:`regression`, over the structures with labels.
    bounds : dict of str to float
        Their bootstrap intervals over structures.
    each : np.ndarray
        RMSE of every structure, nframes; NaN without labels.
    """
    starts = np.cumsum(natoms) - natoms
    squares = np.add.reduceat(np.mean((prediction - label) ** 2, axis=1), starts)
    sizes = np.add.reduceat(np.mean(np.abs(prediction - label), axis=1), starts)
    labelled = np.add.reduceat(np.isfinite(label).all(axis=1).astype(int), starts) == natoms
    atoms = np.repeat(labelled, natoms)
    weights = natoms[labelled].astype(float)
    bounds = {
        name: interval(values[labelled], weights, statistic=function)
        for name, values, function in (
            ("rmse", squares, lambda v, n, axis: np.sqrt(v.sum(axis=axis) / n.sum(axis=axis))),
            ("mae", sizes, lambda v, n, axis: v.sum(axis=axis) / n.sum(axis=axis)),
        )
    }
    each = np.sqrt(squares / natoms)
    return regression(prediction[atoms], label[atoms]), _bounds(bounds), each


def groups(structures: StructureSet, label: np.ndarray) -> dict[tuple[str, str], np.ndarray]:
    """Return the rows of each group of structures.

    Parameters
    ----------
    structures : StructureSet
    label : np.ndarray
        nframes x columns, NaN where missing.

    Returns
    -------
    dict
        Row numbers by kind and name: ``("element", "F")`` for structures that have the element,
        ``("natoms", "15-17")`` for fifths by size, ``("target decile", "3: 0.21 to 0.23")`` for
        tenths by the first label.
    """
    found: dict[tuple[str, str], np.ndarray] = {}
    present = [set(numbers.tolist()) for numbers in structures.elements]
    for z in sorted(set().union(*present)):
        rows = np.flatnonzero([z in one for one in present])
        found["element", symbol(z)] = rows
    natoms = structures.natoms
    for part in _quantiles(natoms, 5):
        low, high = natoms[part].min(), natoms[part].max()
        found["natoms", f"{low}-{high}" if high > low else f"{low}"] = part
    known = np.flatnonzero(np.isfinite(label[:, 0]))
    for number, part in enumerate(_quantiles(label[known, 0], 10), start=1):
        rows = known[part]
        low, high = label[rows, 0].min(), label[rows, 0].max()
        found["target decile", f"{number}: {low:.4g} to {high:.4g}"] = rows
    return found


def _quantiles(values: np.ndarray, parts: int) -> list[np.ndarray]:
    """Divide rows by value into at most so many parts; equal values stay together."""
    if not len(values):
        return []
    edges = np.unique(np.quantile(values, np.linspace(0, 1, parts + 1)[1:-1]))
    which = np.searchsorted(edges, values, side="left")
    return [np.flatnonzero(which == part) for part in np.unique(which)]
