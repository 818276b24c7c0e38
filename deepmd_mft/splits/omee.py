"""Structure- and property-based OOD splits of crystals (Omee et al., npj Comput. Mater. 2024).

As the MFT paper (C.2) describes them; features are orbital-field matrices,
:mod:`deepmd_mft.splits.ofm`. Densities are Gaussian kernel estimates with Scott's bandwidth
scaled by the spread of the points, as ``scipy.stats.gaussian_kde`` has it: with it 45 of the
50 published SparseX targets of MatBench dielectric are among our 500 sparsest, with
scikit-learn's unscaled one 9. So these splits, unlike BOOM's, do not depend on units.
"""

from __future__ import annotations

import numpy as np

from deepmd_mft.errors import UserError
from deepmd_mft.splits.density import lowest_density
from deepmd_mft.splits.fold import Fold, carve, generator, whole

__all__ = [
    "loco",
    "sparse_x",
    "sparse_y",
    "sparse_y_cluster",
    "sparsest_by_features",
    "sparsest_by_values",
]


def _k_means(points: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    from sklearn.cluster import KMeans  # noqa: PLC0415

    whole(clusters, 1, "--clusters")
    distinct = len(np.unique(points, axis=0))
    if clusters > distinct:
        raise UserError(
            f"{clusters} clusters were asked for, but there are only {distinct} distinct "
            f"points among {len(points)}; give --clusters {distinct} or less"
        )
    means = KMeans(clusters, n_init=10, random_state=seed)
    return np.asarray(means.fit_predict(points))


def loco(
    features: np.ndarray,
    groups: np.ndarray,
    *,
    clusters: int = 50,
    id_test: float = 0.0,
    val: float = 0.2,
    seed: int = 0,
) -> list[Fold]:
    """Leave one cluster out: k-means in feature space, each cluster once the OOD test set.

    Parameters
    ----------
    features : np.ndarray
        Shape ``nrows x nfeatures``.
    groups : np.ndarray
        Group of every row, shape ``nrows``.
    clusters : int
        Number of clusters, and of folds.
    id_test, val : float
        Count or fraction of the rest.
    seed : int
        Seed of k-means and of the draws.
    """
    rng = generator(seed)
    labels = _k_means(features, clusters, seed)
    return [
        carve(str(c), np.flatnonzero(labels == c), groups, id_test=id_test, val=val, rng=rng)
        for c in range(clusters)
    ]


def sparsest_by_features(
    features: np.ndarray, n: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of lowest density on a two-dimensional t-SNE map of the features.

    Parameters
    ----------
    features : np.ndarray
        Shape ``nrows x nfeatures``.
    n : int
        How many rows.
    seed : int
        Seed of t-SNE.

    Returns
    -------
    rows : np.ndarray
        ``n`` row numbers, lowest density first.
    points : np.ndarray
        The map, shape ``nrows x 2``.
    """
    from scipy.stats import gaussian_kde  # noqa: PLC0415
    from sklearn.manifold import TSNE  # noqa: PLC0415

    if len(features) <= 4:
        raise UserError(f"{len(features)} rows are too few for a t-SNE map")
    perplexity = min(30.0, (len(features) - 1) / 3)
    mapper = TSNE(random_state=seed, init="pca", perplexity=perplexity)
    points = np.asarray(mapper.fit_transform(features), dtype=np.float64)
    order = np.argsort(gaussian_kde(points.T)(points.T), kind="stable")
    return order[:n], points


def sparsest_by_values(values: np.ndarray, n: int) -> np.ndarray:
    """Rows of lowest density of the target.

    Parameters
    ----------
    values : np.ndarray
        Targets, shape ``nrows``.
    n : int
        How many rows.

    Returns
    -------
    np.ndarray
        ``n`` row numbers, lowest density first.
    """
    spread = float(np.std(values, ddof=1))
    return lowest_density(values / spread if spread > 0 else values, n)


def sparse_x(
    features: np.ndarray,
    groups: np.ndarray,
    *,
    neighbours: int = 0,
    clusters: int = 50,
    candidates: int = 500,
    id_test: float = 0.0,
    val: float = 0.2,
    seed: int = 0,
) -> list[Fold]:
    """Sparse targets by structure: isolated samples, alone or with their nearest neighbours.

    The ``candidates`` samples of lowest density on the t-SNE map of the features are divided by
    k-means into ``clusters``; the sparsest of each cluster is a target. With ``neighbours`` (the
    ``cluster`` splits, 10 in the paper) its nearest samples in feature space join it; no sample
    joins two.

    Parameters
    ----------
    features : np.ndarray
        Shape ``nrows x nfeatures``.
    groups : np.ndarray
        Group of every row, shape ``nrows``.
    neighbours, clusters, candidates : int
        See above.
    id_test, val : float
        Count or fraction of the rest.
    seed : int
        Seed of t-SNE, k-means and the draws.
    """
    rng = generator(seed)
    _check_sizes(len(groups), neighbours, clusters, candidates)
    rows, points = sparsest_by_features(features, candidates, seed)
    targets = _sparsest_of_clusters(rows, points[rows], clusters, seed)
    tests = _with_neighbours(targets, features, neighbours)
    return _folds(tests, groups, id_test, val, rng)


def sparse_y(
    values: np.ndarray,
    groups: np.ndarray,
    *,
    clusters: int = 50,
    candidates: int = 500,
    id_test: float = 0.0,
    val: float = 0.2,
    seed: int = 0,
) -> list[Fold]:
    """Isolated target values, one per fold: as :func:`sparse_x`, by the density of the target.

    Parameters
    ----------
    values : np.ndarray
        Targets, shape ``nrows``.
    groups : np.ndarray
        Group of every row, shape ``nrows``.
    clusters, candidates : int
        As for :func:`sparse_x`.
    id_test, val : float
        Count or fraction of the rest.
    seed : int
        Seed of k-means and the draws.
    """
    rng = generator(seed)
    _check_sizes(len(groups), 0, clusters, candidates)
    targets = _sparsest_values(values, clusters, candidates, seed)
    return _folds([[target] for target in targets], groups, id_test, val, rng)


def sparse_y_cluster(
    values: np.ndarray,
    features: np.ndarray,
    groups: np.ndarray,
    *,
    neighbours: int = 10,
    clusters: int = 50,
    candidates: int = 500,
    id_test: float = 0.0,
    val: float = 0.2,
    seed: int = 0,
) -> list[Fold]:
    """Isolated target values as in :func:`sparse_y`, each with its structural neighbours.

    Parameters
    ----------
    values : np.ndarray
        Targets, shape ``nrows``.
    features : np.ndarray
        Shape ``nrows x nfeatures``.
    groups : np.ndarray
        Group of every row, shape ``nrows``.
    neighbours, clusters, candidates : int
        As for :func:`sparse_x`.
    id_test, val : float
        Count or fraction of the rest.
    seed : int
        Seed of k-means and the draws.
    """
    rng = generator(seed)
    _check_sizes(len(groups), neighbours, clusters, candidates)
    targets = _sparsest_values(values, clusters, candidates, seed)
    tests = _with_neighbours(targets, features, neighbours)
    return _folds(tests, groups, id_test, val, rng)


def _check_sizes(nrows: int, neighbours: int, clusters: int, candidates: int) -> None:
    whole(neighbours, 0, "--neighbours")
    whole(clusters, 1, "--clusters")
    if whole(candidates, 1, "--candidates") > nrows:
        raise UserError(f"--candidates {candidates} exceeds the {nrows:,} rows of the data set")
    if clusters * (1 + neighbours) >= nrows:
        raise UserError(
            f"{clusters} targets of {1 + neighbours} samples do not leave any of "
            f"{nrows:,} rows to train on; give fewer --clusters or --neighbours"
        )


def _sparsest_values(values: np.ndarray, clusters: int, candidates: int, seed: int) -> list[int]:
    rows = sparsest_by_values(values, candidates)
    return _sparsest_of_clusters(rows, values[rows, None], clusters, seed)


def _sparsest_of_clusters(
    rows: np.ndarray, points: np.ndarray, clusters: int, seed: int
) -> list[int]:
    """Divide candidates, which come sparsest first, by k-means; return the first of each part."""
    labels = _k_means(points, clusters, seed)
    return [int(rows[labels == c][0]) for c in range(clusters)]


def _folds(
    tests: list[list[int]],
    groups: np.ndarray,
    id_test: float,
    val: float,
    rng: np.random.Generator,
) -> list[Fold]:
    return [
        carve(str(c), np.array(test), groups, id_test=id_test, val=val, rng=rng)
        for c, test in enumerate(tests)
    ]


def _with_neighbours(targets: list[int], features: np.ndarray, n: int) -> list[list[int]]:
    """Join to each target its ``n`` nearest samples that no other cluster has."""
    used = np.zeros(len(features), dtype=bool)
    used[targets] = True
    tests = []
    for target in targets:
        distance = np.linalg.norm(features - features[target], axis=1)
        distance[used] = np.inf
        nearest = np.argsort(distance, kind="stable")[:n]
        used[nearest] = True
        tests.append([target, *nearest.tolist()])
    return tests
