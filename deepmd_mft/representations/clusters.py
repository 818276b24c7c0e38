"""How well classes stand apart: t-SNE, Davies-Bouldin index, silhouette."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import pdist
from sklearn.manifold import TSNE
from sklearn.metrics import davies_bouldin_score, silhouette_score

from deepmd_mft.errors import UserError

__all__ = ["ClusterScores", "cluster_scores", "davies_bouldin", "flatten"]

#: Points of which the silhouette is taken: its cost grows with their square.
SILHOUETTE_POINTS = 5000


@dataclass(frozen=True)
class ClusterScores:
    """Separation of the classes in one space.

    Parameters
    ----------
    davies_bouldin : float
        Lower is more distinct.
    low, high : float
        2.5 % and 97.5 % quantile of its bootstrap.
    silhouette : float
        From -1 to 1; higher is more distinct.
    """

    davies_bouldin: float
    low: float
    high: float
    silhouette: float


def davies_bouldin(points: np.ndarray, labels: np.ndarray) -> float:
    """Return the Davies-Bouldin index with p = 2, q = 1 (MFT, eqs. 13 and 14).

    The mean over classes of the largest ``(S_i + S_j) / M_ij``, with S the mean Euclidean distance
    to the centroid and M the distance of two centroids: scikit-learn's definition. Where
    scikit-learn passes over two classes that share a centroid, and returns 0, the best value, if
    all do, this returns infinity: nothing is worse separated.

    Parameters
    ----------
    points : np.ndarray
        ``npoints x dim``.
    labels : np.ndarray
        Class of each point.

    Returns
    -------
    float
    """
    centroids = np.stack([points[labels == name].mean(axis=0) for name in np.unique(labels)])
    if pdist(centroids, "chebyshev").min() <= 1e-12 + 1e-9 * np.abs(points).max():
        return float("inf")
    return float(davies_bouldin_score(points, labels))


def cluster_scores(
    points: np.ndarray, labels: np.ndarray, *, bootstrap: int = 100, seed: int = 0
) -> ClusterScores:
    """Score the separation of classes, with an interval from resampling inside each class.

    Parameters
    ----------
    points : np.ndarray
        ``npoints x dim``.
    labels : np.ndarray
        Class of each point.
    bootstrap : int
        Number of resamples.
    seed : int
        Seed of the resampling and of the silhouette's sample.

    Returns
    -------
    ClusterScores
    """
    index = davies_bouldin(points, labels)
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(labels == name) for name in np.unique(labels)]
    draws = []
    for _ in range(bootstrap):
        rows = np.concatenate([rng.choice(m, len(m)) for m in members])
        draws.append(davies_bouldin(points[rows], labels[rows]))
    finite = [d for d in draws if np.isfinite(d)]
    low, high = np.quantile(finite, [0.025, 0.975]) if finite else (index, index)
    silhouette = silhouette_score(
        points, labels, sample_size=min(SILHOUETTE_POINTS, len(points)), random_state=seed
    )
    return ClusterScores(index, float(low), float(high), float(silhouette))


def flatten(points: np.ndarray, *, seed: int = 0, perplexity: float = 30.0) -> np.ndarray:
    """Lay points out in the plane by t-SNE (van der Maaten and Hinton 2008, scikit-learn).

    Parameters
    ----------
    points : np.ndarray
        ``npoints x dim``.
    seed : int
        t-SNE's random state.
    perplexity : float
        Number of neighbours that a point looks at, roughly; scikit-learn's default is 30.

    Returns
    -------
    np.ndarray
        ``npoints x 2``; all zero if the points are all the same.

    Raises
    ------
    UserError
        If there are not more points than the perplexity, or some are not finite.
    """
    if len(points) <= perplexity:
        raise UserError(
            f"t-SNE of {len(points)} points needs more than its perplexity of {perplexity:g}; give "
            "more structures or a larger --per-class"
        )
    if not np.isfinite(points).all():
        raise UserError(
            "representations hold NaN or infinite numbers: the training of this checkpoint diverged"
        )
    spread = np.ptp(points, axis=0).max()
    if spread <= 1e-7 * max(1.0, float(np.abs(points).max())):
        return np.zeros((len(points), 2))  # t-SNE starts from the spread, and there is none
    tsne = TSNE(2, perplexity=perplexity, init="pca", random_state=seed, n_jobs=1)
    return np.asarray(tsne.fit_transform(points))
