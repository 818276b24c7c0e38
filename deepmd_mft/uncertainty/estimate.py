"""Standard deviations of predictions, and distances from the training set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import brentq
from scipy.special import digamma, polygamma
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import NearestNeighbors

if TYPE_CHECKING:
    from collections.abc import Callable

    from scipy import sparse

__all__ = [
    "DISTANCES",
    "STDS",
    "Fitted",
    "Looked",
    "Reference",
    "laplace",
    "nearest",
    "positive",
    "usable_stds",
    "variance_prior",
]

#: Neighbours whose distances are averaged.
NEIGHBOURS = 10
#: Degrees of freedom of a prior that leaves hardly anything to the single structure.
MOST_DEGREES = 1e6


@dataclass
class Looked:
    """What some models make of some structures.

    Parameters
    ----------
    predictions : np.ndarray
        nmodels x nframes x columns; of classes these are logits.
    variances : np.ndarray or None
        Of their variance heads, in the same shape.
    latent : list of np.ndarray
        Of each model, the mean of the descriptor over the atoms, nframes x width.
    last : list of np.ndarray
        Of each model, the features that its prediction is linear in, means over the atoms, nframes
        x width; none of models of classes.
    fingerprints : scipy.sparse.csr_matrix
        Of the structures alone (:func:`~deepmd_mft.report.distance.fingerprints`).
    sizes : np.ndarray, optional
        Number of atoms where a column is a sum over them, else 1, nframes x columns; 1 if left out.
    """

    predictions: np.ndarray
    variances: np.ndarray | None
    latent: list[np.ndarray]
    last: list[np.ndarray]
    fingerprints: sparse.csr_matrix
    sizes: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.sizes is None:
            self.sizes = np.ones(self.predictions.shape[1:])

    @property
    def mean(self) -> np.ndarray:
        """The prediction of an ensemble that predicts numbers, nframes x columns."""
        return np.asarray(self.predictions.mean(axis=0))


@dataclass
class Reference:
    """What distances need of the training set.

    Parameters
    ----------
    ids : list of str
        Names of its structures.
    latent : list of np.ndarray
        Of each model, as in :class:`Looked`.
    fingerprints : scipy.sparse.csr_matrix
    """

    ids: list[str]
    latent: list[np.ndarray]
    fingerprints: sparse.csr_matrix


@dataclass
class Fitted:
    """What standard deviations need of the training and the validation set.

    Parameters
    ----------
    second_moments : list of np.ndarray
        Of each model, F^T F of the last-layer features F of the training set.
    ridge : list of float
        Of each model, what is added to the diagonal of F^T F.
    prior : np.ndarray
        Of the variances of an ensemble, as :func:`variance_prior` returns it; of one model NaN.
    """

    second_moments: list[np.ndarray]
    ridge: list[float]
    prior: np.ndarray


def variance_prior(predictions: np.ndarray) -> np.ndarray:
    """Return the prior of the variances of few models, from all structures together.

    Empirical Bayes of Smyth (Stat. Appl. Genet. Mol. Biol. 3, 3, 2004), Section 6.2: the variance
    of m models has d = m - 1 degrees of freedom about the structure's own, which is d0 s0^2 over a
    chi-squared variable of d0 degrees of freedom. The mean and variance of the logarithms give d0
    and s0^2. If the variances differ no more than by chance d0 is :data:`MOST_DEGREES`, with which
    std hardly varies but keeps its order.

    Parameters
    ----------
    predictions : np.ndarray
        nmodels x nframes x columns.

    Returns
    -------
    np.ndarray
        2 x columns: d0 and s0^2; NaN of one model.
    """
    free = len(predictions) - 1
    if not free:
        return np.full((2, predictions.shape[2]), np.nan)
    log = 2 * np.log(positive(predictions.std(axis=0, ddof=1)))
    log += np.log(free / 2) - digamma(free / 2)
    spread = log.var(axis=0, ddof=1) if len(log) > 1 else np.zeros(log.shape[1])
    excess = spread - polygamma(1, free / 2)
    degrees = 2 * np.array([_inverse_trigamma(one) for one in excess.tolist()])
    usual = np.exp(log.mean(axis=0) + digamma(degrees / 2) - np.log(degrees / 2))
    return np.stack([degrees, usual])


def _inverse_trigamma(value: float) -> float:
    """Return x with trigamma(x) = value, half of :data:`MOST_DEGREES` at most."""
    most = MOST_DEGREES / 2
    if value <= float(polygamma(1, most)):
        return most
    found = brentq(lambda x: float(polygamma(1, np.exp(x))) - value, -20.0, np.log(most))
    return float(np.exp(found))


def positive(std: np.ndarray) -> np.ndarray:
    """Return std, nowhere 0: models that agree by chance are not certain.

    Parameters
    ----------
    std : np.ndarray
        nframes x columns, each in a unit of its own.
    """
    return np.maximum(std, 1e-6 * np.maximum(std.max(axis=0, initial=0.0), 1e-12))


def laplace(features: np.ndarray, second_moment: np.ndarray, ridge: float) -> np.ndarray:
    """Return f^T (F^T F + ridge)^-1 f of each row f: the last-layer Laplace variance.

    Up to a factor it is the variance of a Gaussian process whose kernel is f f'/ridge with noise 1
    (Bigi et al., arXiv 2403.02251). The factor comes from the calibration.

    Parameters
    ----------
    features : np.ndarray
        nframes x width.
    second_moment : np.ndarray
        F^T F of the training set, width x width.
    ridge : float
    """
    whole = second_moment + ridge * np.eye(len(second_moment))
    solved = np.linalg.solve(whole, features.T)
    return np.asarray(np.einsum("nw,wn->n", features, solved))


def _ensemble(looked: Looked, fitted: Fitted | None) -> np.ndarray:
    """Return the std of the models; with a prior Smyth's moderated one, between it and s0."""
    variance = looked.predictions.var(axis=0, ddof=1)
    if fitted is None:
        return np.asarray(np.sqrt(variance))
    free, (degrees, usual) = len(looked.predictions) - 1, fitted.prior
    own = free / (free + degrees)
    return np.asarray(np.sqrt(own * variance + (1 - own) * usual))


def _variance(looked: Looked, _fitted: Fitted | None) -> np.ndarray:
    if looked.variances is None:
        raise ValueError("no variance head")
    return np.asarray(np.sqrt(looked.variances.mean(axis=0)))


def _llpr(looked: Looked, fitted: Fitted | None) -> np.ndarray:
    if fitted is None:
        raise ValueError("no training set")
    kept = zip(looked.last, fitted.second_moments, fitted.ridge, strict=True)
    variance = np.mean([laplace(*one) for one in kept], axis=0)
    # Losses compare sums over the atoms per atom: that is what the last layer is fitted to.
    return np.asarray(np.sqrt(variance)[:, None] * looked.sizes)


def _mahalanobis(looked: Looked, reference: Reference) -> np.ndarray:
    found = []
    for values, train in zip(looked.latent, reference.latent, strict=True):
        scale = _scale(train)
        fitted = LedoitWolf().fit(train / scale)
        found.append(np.sqrt(fitted.mahalanobis(values / scale)))
    return np.asarray(np.mean(found, axis=0))


def _neighbours(looked: Looked, reference: Reference) -> np.ndarray:
    found = []
    for values, train in zip(looked.latent, reference.latent, strict=True):
        scale = _scale(train)
        near = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(train))).fit(train / scale)
        found.append(near.kneighbors(values / scale)[0].mean(axis=1))
    return np.asarray(np.mean(found, axis=0))


def _structural(looked: Looked, reference: Reference) -> np.ndarray:
    near = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(reference.fingerprints)
    return np.asarray(near.kneighbors(looked.fingerprints)[0][:, 0])


def _scale(train: np.ndarray) -> np.ndarray:
    """Return the standard deviation of each column; 1 where it does not vary."""
    std = train.std(axis=0)
    return np.where(std > 1e-12 * max(std.max(), 1e-300), std, 1.0)


#: Standard deviations, nframes x columns; up to a factor that the calibration finds.
STDS: dict[str, Callable[[Looked, Fitted | None], np.ndarray]] = {
    "ensemble": _ensemble,
    "variance": _variance,
    "llpr": _llpr,
}
#: Distances from the training set, nframes; the larger the farther.
DISTANCES: dict[str, Callable[[Looked, Reference], np.ndarray]] = {
    "mahalanobis": _mahalanobis,
    "knn": _neighbours,
    "structural": _structural,
}


def usable_stds(looked: Looked, *, calibrated: bool) -> list[str]:
    """Return the names of the standard deviations that there are, the preferred one first."""
    usable = {
        "ensemble": len(looked.predictions) > 1,
        "variance": looked.variances is not None,
        "llpr": calibrated,
    }
    return [name for name in STDS if usable[name]]


def nearest(looked: Looked, reference: Reference) -> list[str]:
    """Return the name of the training structure that is nearest to each in the first model."""
    scale = _scale(reference.latent[0])
    near = NearestNeighbors(n_neighbors=1).fit(reference.latent[0] / scale)
    places = near.kneighbors(looked.latent[0] / scale, return_distance=False)[:, 0]
    return [reference.ids[place] for place in places.tolist()]
