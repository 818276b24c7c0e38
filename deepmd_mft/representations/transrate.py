"""TransRate: how much features tell of a target (Huang et al. 2022, arXiv 2106.09362).

The mutual information of features and classes, with the coding rate in place of the entropy. The
transfer paper (MACE on MatBench) takes it of each layer's structure-level features and divides it
by the rate of the features.
"""

from __future__ import annotations

import numpy as np

from deepmd_mft.errors import UserError

__all__ = ["SHUFFLED", "bin_target", "coding_rate", "layer_profile", "transrate"]

#: Distortion; the value of the paper's published code.
EPSILON = 1e-4
#: Follows a checkpoint's name where the labels were shuffled: what TransRate shows by chance.
SHUFFLED = ", labels shuffled"


def coding_rate(features: np.ndarray, *, epsilon: float = EPSILON) -> float:
    """Return the rate ``R(Z, e) = 1/2 logdet(1 + Z'Z / (n e))``, in nats.

    Parameters
    ----------
    features : np.ndarray
        ``n x dim``.
    epsilon : float
        Distortion that is allowed.

    Returns
    -------
    float
    """
    z = features.astype(np.float64)
    matrix = np.eye(z.shape[1]) + z.T @ z / (len(z) * epsilon)
    return float(0.5 * np.linalg.slogdet(matrix)[1])


def transrate(features: np.ndarray, classes: np.ndarray, *, epsilon: float = EPSILON) -> float:
    """Return ``R(Z, e) - R(Z, e | Y)`` of centred features, in nats.

    The second term is the mean of the classes' rates, each weighted by its share of the rows; with
    classes of one size that is the unweighted mean of the paper's published code.

    Parameters
    ----------
    features : np.ndarray
        ``n x dim``; centred here, as the definition asks.
    classes : np.ndarray
        Class of each row, shape ``n``.
    epsilon : float
        Distortion that is allowed.

    Returns
    -------
    float
    """
    z = features - features.mean(axis=0, dtype=np.float64)
    within = 0.0
    for name in np.unique(classes):
        rows = classes == name
        within += rows.mean() * coding_rate(z[rows], epsilon=epsilon)
    return coding_rate(z, epsilon=epsilon) - within


def bin_target(values: np.ndarray, *, nbins: int = 10) -> np.ndarray:
    """Turn a target into classes: bins of equal counts, or the classes it already has.

    Parameters
    ----------
    values : np.ndarray
        Shape ``n``; a target of at most ``nbins`` different values is taken as classes.
    nbins : int
        Number of bins.

    Returns
    -------
    np.ndarray of int

    Raises
    ------
    UserError
        If the target is constant or has too few rows.
    """
    different = np.unique(values)
    if len(different) < 2:
        raise UserError("the property is the same in all structures; there is nothing to tell")
    if len(different) <= nbins:
        return np.searchsorted(different, values)
    if len(values) < 5 * nbins:
        raise UserError(
            f"{len(values)} structures are too few for {nbins} bins of the property; give more, or "
            "fewer --bins"
        )
    edges = np.quantile(values, np.linspace(0, 1, nbins + 1)[1:-1])
    return np.searchsorted(edges, values, side="right")


def layer_profile(pooled: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return TransRate over the rate of the features, layer by layer.

    Features of every layer are first centred and scaled to a mean squared length of one: a rate
    depends on the scale, and layers differ in it.

    Parameters
    ----------
    pooled : np.ndarray
        Structure-level features, ``nlayers x nstructures x dim``.
    classes : np.ndarray
        Class of each structure.

    Returns
    -------
    np.ndarray
        ``nlayers``; 0 where the features tell nothing.
    """
    profile = []
    for layer in pooled:
        z = layer - layer.mean(axis=0, dtype=np.float64)
        length = np.sqrt((z**2).sum(axis=1).mean())
        z = z / length if length > 0 else z
        rate = coding_rate(z)
        profile.append(transrate(z, classes) / rate if rate > 0 else 0.0)
    return np.array(profile)
