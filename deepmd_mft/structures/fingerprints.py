"""A fingerprint of a structure: distances that do not depend on how it is written down."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

if TYPE_CHECKING:
    from deepmd_mft.structures.structure import Structure

__all__ = ["SHELL", "composition", "content_hash", "fingerprint", "short_fingerprint"]

#: Neighbour distances of each atom that go into its fingerprint.
SHELL = 40
#: Neighbours whose mean distances make the short fingerprint.
_SHORT = (0, 1, 3, 6, 10, 15, 22, 39)
_MOST_IMAGES = 500_000


def content_hash(structure: Structure | tuple[np.ndarray, np.ndarray, np.ndarray | None]) -> int:
    """Return a number that only structures of the very same arrays share."""
    digest = hashlib.blake2b(digest_size=8)
    for array in structure:
        digest.update(b"-" if array is None else np.ascontiguousarray(array).tobytes())
    return int.from_bytes(digest.digest(), "little")


def composition(numbers: np.ndarray, *, periodic: bool) -> tuple[object, ...]:
    """Return elements and counts; of a crystal, whose cell can be chosen, their ratios."""
    elements, counts = np.unique(numbers, return_counts=True)
    divisor = np.gcd.reduce(counts) if periodic else 1
    return (periodic, *elements.tolist(), *(counts // divisor).tolist())


def fingerprint(
    numbers: np.ndarray, coords: np.ndarray, cell: np.ndarray | None = None
) -> np.ndarray:
    """Return mean and spread of the sorted neighbour distances, for each element.

    Parameters
    ----------
    numbers : np.ndarray
        Atomic numbers, shape ``nloc``.
    coords : np.ndarray
        In Angstrom, shape ``nloc x 3``.
    cell : np.ndarray or None
        In Angstrom, shape ``3 x 3``.

    Returns
    -------
    np.ndarray
        In Angstrom, shape ``2 * nelements * 40 + 1``: of molecules the last entry is the mean
        distance of all pairs, of crystals the cube root of the volume per atom.
    """
    if cell is None:
        distances = cdist(coords, coords)
        shell = np.sort(distances, axis=1)[:, 1 : SHELL + 1]
        shell = np.pad(shell, ((0, 0), (0, SHELL - shell.shape[1])))
        size = float(distances.mean())
    else:
        volume = abs(float(np.linalg.det(cell))) / len(numbers)
        shell, size = _periodic_shell(coords, cell, volume), volume ** (1.0 / 3.0)
    order = np.argsort(numbers, kind="stable")
    starts = np.flatnonzero(np.diff(numbers[order], prepend=-1))
    counts = np.diff(starts, append=len(numbers))[:, None]
    shell = shell[order]
    mean = np.add.reduceat(shell, starts) / counts
    square = np.add.reduceat(shell**2, starts) / counts
    spread = np.sqrt(np.maximum(square - mean**2, 0.0))
    return np.concatenate([mean.ravel(), spread.ravel(), [size]], dtype=np.float32)


def short_fingerprint(whole: np.ndarray) -> np.ndarray:
    """Return some entries of a fingerprint, a fifteenth: enough to tell most apart."""
    means = whole[: len(whole) // 2].reshape(-1, SHELL)[:, _SHORT]
    return np.append(means.ravel(), whole[-1])


def _periodic_shell(coords: np.ndarray, cell: np.ndarray, volume: float) -> np.ndarray:
    """Return distances to the 40 nearest atoms, images included, shape ``nloc x 40``."""
    inverse = np.linalg.inv(cell)
    heights = 1.0 / np.linalg.norm(inverse, axis=0)
    fractions = coords @ inverse
    coords = (fractions - np.floor(fractions)) @ cell  # images are made around the cell
    radius = (3.0 * (SHELL + 1) * volume / (4.0 * np.pi)) ** (1.0 / 3.0)
    while True:
        repeats = np.ceil(radius / heights).astype(int) + 1
        shifts = np.stack(
            np.meshgrid(*(np.arange(-r, r + 1) for r in repeats), indexing="ij"), axis=-1
        ).reshape(-1, 3)
        images = ((shifts @ cell)[:, None] + coords[None]).reshape(-1, 3)
        inside = (repeats - 1) * heights  # every image this near is in the list
        distances, _ = cKDTree(images).query(coords, k=SHELL + 1)
        reach = float(distances.max())
        if reach <= inside.min() or len(images) > _MOST_IMAGES:
            return np.asarray(distances[:, 1:])
        radius = max(reach, radius * 1.3)
