"""Standard deviations of predictions, and distances from the training set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import NearestNeighbors

if TYPE_CHECKING:
    from collections.abc import Callable

    from scipy import sparse

__all__ = [
    "DISTANCES",
    "STDS",
    "LastLayer",
    "Looked",
    "Reference",
    "laplace",
    "nearest",
    "usable_stds",
]

#: Neighbours whose distances are averaged.
NEIGHBOURS = 10


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
        Of each model, the features that its prediction is linear in, nframes x width; none of
        models of classes.
    fingerprints : scipy.sparse.csr_matrix
        Of the structures alone (:func:`~deepmd_mft.report.distance.fingerprints`).
    """

    predictions: np.ndarray
    variances: np.ndarray | None
    latent: list[np.ndarray]
    last: list[np.ndarray]
    fingerprints: sparse.csr_matrix

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
class LastLayer:
    """What the last-layer Laplace needs of the training set.

    Parameters
    ----------
    second_moments : list of np.ndarray
        Of each model, F^T F of the last-layer features F.
    ridge : list of float
        Of each model, what is added to the diagonal of F^T F.
    """

    second_moments: list[np.ndarray]
    ridge: list[float]


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


def _ensemble(looked: Looked, _training: LastLayer | None) -> np.ndarray:
    return np.asarray(looked.predictions.std(axis=0, ddof=1))


def _variance(looked: Looked, _training: LastLayer | None) -> np.ndarray:
    if looked.variances is None:
        raise ValueError("no variance head")
    return np.asarray(np.sqrt(looked.variances.mean(axis=0)))


def _llpr(looked: Looked, training: LastLayer | None) -> np.ndarray:
    if training is None:
        raise ValueError("no training set")
    kept = zip(looked.last, training.second_moments, training.ridge, strict=True)
    variance = np.mean([laplace(*one) for one in kept], axis=0)
    return np.repeat(np.sqrt(variance)[:, None], looked.predictions.shape[2], axis=1)


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
STDS: dict[str, Callable[[Looked, LastLayer | None], np.ndarray]] = {
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
