"""Cells: the same lattice with right-handed cell vectors, which deepmd-kit needs.

deepmd-kit 3.2 divides the cutoff by distances between cell faces that have the sign of the
cell's determinant (``b_to_face_distance``). With a left-handed cell they are negative, and the
neighbour list has too few periodic images, or none: NaCl has 6 neighbours within 4 Angstrom
instead of 18. Earlier engines stopped at such cells (deepmd-kit issue 972); a review of pull
request 5613 found the same line in the JAX backend.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["left_handed", "right_handed"]


def left_handed(cells: ArrayLike) -> np.ndarray:
    """Return which cells have a negative determinant.

    Parameters
    ----------
    cells : array_like
        Cell vectors in rows, shape ``... x 3 x 3``.

    Returns
    -------
    np.ndarray of bool
        Shape ``...``; False where a cell has no volume or is not finite.
    """
    finite = np.nan_to_num(np.asarray(cells, dtype=np.float64), posinf=0.0, neginf=0.0)
    return np.asarray(np.linalg.det(finite) < 0)


def right_handed(cells: ArrayLike) -> np.ndarray:
    """Return the same lattices with right-handed cell vectors.

    The negative of a cell spans the same lattice with the other handedness, so coordinates,
    energies, forces and virials stay what they are: nothing is mirrored.

    Parameters
    ----------
    cells : array_like
        Cell vectors in rows, in Angstrom, shape ``... x 3 x 3``.

    Returns
    -------
    np.ndarray
        As ``cells``, in a new array of double precision; left-handed ones negated.
    """
    array = np.array(cells, dtype=np.float64)
    array[left_handed(array)] *= -1.0
    return array
