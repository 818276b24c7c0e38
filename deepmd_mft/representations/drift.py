"""How far representations and weights have moved from a reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.distance import cdist

from deepmd_mft.backbones.families import CONTAINERS, layer_of
from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    import torch

__all__ = [
    "Drift",
    "drift",
    "linear_cka",
    "sliced_wasserstein",
    "spread",
    "wasserstein",
    "weight_drift",
]


@dataclass(frozen=True)
class Drift:
    """Distance of two sets of representations.

    Parameters
    ----------
    wasserstein : float
        Exact 1-Wasserstein distance, in the unit of the features.
    low, high : float
        Range of it in the bootstrap; both equal to it without one.
    relative : float
        It over the spread of the reference.
    sliced : float
        Sliced 1-Wasserstein distance.
    cka : float
        Linear CKA: 1 for features equal up to rotation and scale.
    """

    wasserstein: float
    low: float
    high: float
    relative: float
    sliced: float
    cka: float


def drift(reference: np.ndarray, other: np.ndarray, *, bootstrap: int = 0, seed: int = 0) -> Drift:
    """Measure how far representations of the same atoms are from the reference's.

    Parameters
    ----------
    reference, other : np.ndarray
        ``natoms x dim``, row by row the same atoms.
    bootstrap : int
        Number of resamples of the atoms, the same in both; each costs one exact distance.
    seed : int
        Seed of the resampling and of the directions of the sliced distance.

    Returns
    -------
    Drift

    Raises
    ------
    UserError
        If the two have different widths.
    """
    value = wasserstein(reference, other)
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(bootstrap):
        rows = rng.integers(len(reference), size=len(reference))
        draws.append(wasserstein(reference[rows], other[rows]))
    return Drift(
        wasserstein=value,
        low=min(draws, default=value),
        high=max(draws, default=value),
        relative=value / spread(reference),
        sliced=sliced_wasserstein(reference, other, seed=seed),
        cka=linear_cka(reference, other),
    )


def wasserstein(first: np.ndarray, second: np.ndarray) -> float:
    """Return the exact 1-Wasserstein distance of two point sets (MFT, eq. 15).

    Every point weighs the same, the cost is the Euclidean distance, solved by POT's network
    simplex: seconds for 5000 points a side. (scipy's assignment solver takes a third of the memory,
    but four times as long for 2000 atoms before and after fine-tuning, and worse for more.)

    Parameters
    ----------
    first, second : np.ndarray
        ``n x dim`` and ``m x dim``.

    Returns
    -------
    float
        In the unit of the features; exactly 0 for equal arrays.
    """
    import ot  # noqa: PLC0415  (a second to import)

    _check_widths(first, second)
    if first.shape == second.shape and np.array_equal(first, second):
        return 0.0
    return float(ot.emd2([], [], cdist(first, second), numItermax=100_000_000))


def sliced_wasserstein(
    first: np.ndarray, second: np.ndarray, *, directions: int = 200, seed: int = 0
) -> float:
    """Return the sliced 1-Wasserstein distance: the mean over random directions, by POT.

    Seconds become milliseconds; the number is smaller than the exact distance (by about the
    square root of the dimension where points move in one direction), so compare it only with
    itself.
    """
    import ot  # noqa: PLC0415

    _check_widths(first, second)
    if first.shape == second.shape and np.array_equal(first, second):
        return 0.0
    return float(
        ot.sliced_wasserstein_distance(
            first.astype(np.float64),
            second.astype(np.float64),
            n_projections=directions,
            p=1,
            seed=seed,
        )
    )


def linear_cka(first: np.ndarray, second: np.ndarray) -> float:
    """Return the linear centred kernel alignment (Kornblith et al. 2019, arXiv 1905.00414).

    ``|Y'X|^2 / (|X'X| |Y'Y|)`` with centred columns and Frobenius norms. 1 for features equal up
    to rotation, shift and scale. The widths may differ, the rows must be the same atoms.

    Parameters
    ----------
    first, second : np.ndarray
        ``n x dim`` and ``n x other dim``.

    Returns
    -------
    float
        NaN if one of them does not vary.
    """
    x = first.astype(np.float64) - first.mean(axis=0, dtype=np.float64)
    y = second.astype(np.float64) - second.mean(axis=0, dtype=np.float64)
    norm = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(np.linalg.norm(y.T @ x) ** 2 / norm) if norm > 0 else float("nan")


def spread(features: np.ndarray) -> float:
    """Return the root of the mean squared distance to the centroid."""
    centred = features - features.mean(axis=0, dtype=np.float64)
    return float(np.sqrt((centred**2).sum(axis=1).mean()))


def weight_drift(
    reference: dict[str, torch.Tensor], other: dict[str, torch.Tensor]
) -> dict[str, float]:
    """Return ``|w - w0| / |w0|`` of every layer (MTL, mace-transfer-matbench, Fig. 2b).

    Parameters
    ----------
    reference, other : dict of str to torch.Tensor
        Trained tensors of two descriptors.

    Returns
    -------
    dict of str to float
        By layer: ``type_embedding``, ``edge_embd``, ``layer 1``, ... and ``all``.

    Raises
    ------
    UserError
        If the two have different tensors.
    """
    if {k: v.shape for k, v in reference.items()} != {k: v.shape for k, v in other.items()}:
        odd = sorted(
            k
            for k in reference.keys() | other.keys()
            if k not in reference or k not in other or reference[k].shape != other[k].shape
        )
        raise UserError(
            f"the two descriptors differ in {len(odd)} tensors (the first: {odd[0]}), so their "
            "weights cannot be compared; both must have been trained from one descriptor JSON"
        )
    squares: dict[str, list[float]] = {}
    for name, start in reference.items():
        moved = (other[name].double() - start.double()).square().sum().item()
        length = start.double().square().sum().item()
        for layer in (_layer_of(name), "all"):
            sums = squares.setdefault(layer, [0.0, 0.0])
            sums[0] += moved
            sums[1] += length
    ratios = {
        layer: float(np.sqrt(moved / length)) if length else float("nan")
        for layer, (moved, length) in squares.items()
    }
    order = sorted(ratios, key=lambda layer: (layer == "all", layer.startswith("layer ")))
    return {layer: ratios[layer] for layer in order}


def _layer_of(name: str) -> str:
    """Return the message-passing layer of a tensor, or the part of the descriptor it is in."""
    layer = layer_of(name)
    if layer is not None:
        return f"layer {layer + 1}"
    block, _, rest = name.partition(".")
    return rest.split(".")[0] if block in CONTAINERS else block


def _check_widths(first: np.ndarray, second: np.ndarray) -> None:
    if first.shape[1] != second.shape[1]:
        raise UserError(
            f"the representations have {first.shape[1]} and {second.shape[1]} columns: a distance "
            "is defined only between checkpoints of one width; analyse them apart"
        )
