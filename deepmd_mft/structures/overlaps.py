"""Atoms on top of each other: no network can say anything sensible of them."""

from __future__ import annotations

import numpy as np

__all__ = ["MIN_DISTANCE", "overlapping"]

#: Two atoms closer than this (in Angstrom) lie on top of each other; H2 has 0.74.
MIN_DISTANCE = 0.3
# Atom pairs looked at in one go, so that a batch needs some tens of megabytes.
_PAIRS = 1_000_000


def overlapping(coords: np.ndarray, cells: np.ndarray | None) -> np.ndarray:
    """Tell which structures have two atoms in one place.

    The nearest periodic image is taken in fractional coordinates, which is exact for the
    tiny distances that are asked about here. Atoms are taken in blocks of rows of the
    distance matrix, so that the memory is bounded for large structures too.

    Parameters
    ----------
    coords : np.ndarray
        Positions in Angstrom, shape ``nf x nloc x 3``.
    cells : np.ndarray, optional
        Cell vectors in rows, shape ``nf x 3 x 3``; None for molecules.

    Returns
    -------
    np.ndarray of bool
        Shape ``nf``: whether two atoms are closer than :data:`MIN_DISTANCE`.
    """
    nf, nloc, _ = coords.shape
    found = np.zeros(nf, dtype=bool)
    step, rows = max(1, _PAIRS // nloc**2), max(1, _PAIRS // nloc)
    for start in range(0, nf, step):
        part = slice(start, start + step)
        for first in range(0, nloc, rows):
            square = _squares(coords[part], None if cells is None else cells[part], first, rows)
            here = np.arange(square.shape[1])
            square[:, here, first + here] = np.inf
            found[part] |= square.reshape(len(square), -1).min(axis=1) < MIN_DISTANCE**2
    return found


def _squares(coords: np.ndarray, cells: np.ndarray | None, first: int, rows: int) -> np.ndarray:
    """Squared distances from ``rows`` atoms to all, shape ``nf x rows x nloc``."""
    if cells is None:
        # |a - b|^2 as one matrix product; about the centre it loses no digits.
        centred = coords - coords.mean(axis=1, keepdims=True)
        norms = np.einsum("fix,fix->fi", centred, centred)
        block = slice(first, first + rows)
        square = norms[:, block, None] + norms[:, None, :]
        return np.asarray(square - 2.0 * centred[:, block] @ centred.transpose(0, 2, 1))
    fractions = coords @ np.linalg.inv(cells)
    between = fractions[:, first : first + rows, None] - fractions[:, None]
    between -= np.round(between)
    vectors = between @ cells[:, None]
    return np.asarray(np.einsum("fijx,fijx->fij", vectors, vectors))
