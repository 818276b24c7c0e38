"""One molecule or crystal."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from deepmd_mft.errors import UserError
from deepmd_mft.structures.cells import right_handed
from deepmd_mft.structures.elements import ELEMENTS

__all__ = ["Structure", "checked"]

#: Largest coordinate, in Angstrom. Beyond it differences are rounded away, and all are alike.
FARTHEST = 1e6


class Structure(NamedTuple):
    """One molecule or crystal.

    Parameters
    ----------
    numbers : np.ndarray
        Atomic numbers, 1 to 118, shape ``nloc``; no virtual atoms.
    positions : np.ndarray
        In Angstrom, shape ``nloc x 3``.
    cell : np.ndarray or None
        Right-handed cell vectors in rows, in Angstrom, shape ``3 x 3``; None for a molecule.
    """

    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray | None = None

    def atoms(self) -> Any:
        """Return it as ``ase.Atoms``."""
        from ase import Atoms  # noqa: PLC0415

        periodic = self.cell is not None
        return Atoms(self.numbers, self.positions, cell=self.cell, pbc=periodic)


def checked(
    numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray | None, where: str
) -> Structure:
    """Return a structure that a network can take.

    Parameters
    ----------
    numbers : np.ndarray
        Atomic numbers, shape ``nloc``.
    positions : np.ndarray
        In Angstrom, shape ``nloc x 3``.
    cell : np.ndarray or None
        In Angstrom, shape ``3 x 3``, of either hand; None for a molecule.
    where : str
        File and row, for messages.

    Raises
    ------
    UserError
        If there are no atoms, an atom is no element, or a number is not finite or the cell has
        no volume.
    """
    if not len(numbers):
        raise UserError(f"{where} has no atoms; remove it")
    if numbers.min() < 1 or numbers.max() > len(ELEMENTS):
        atom = int(np.flatnonzero((numbers < 1) | (numbers > len(ELEMENTS)))[0])
        raise UserError(
            f"{where}: atom {atom} has the atomic number {numbers[atom]}, which is no element (a "
            "dummy atom?); remove the atom or the structure"
        )
    if not np.isfinite(positions).all():
        raise UserError(f"{where} has coordinates that are NaN or inf; remove or mend it")
    if np.abs(positions).max() > FARTHEST:
        raise UserError(
            f"{where} has a coordinate of {np.abs(positions).max():.3g} Angstrom; remove or mend it"
        )
    if cell is None:
        return Structure(numbers, positions)
    if not np.isfinite(cell).all() or not np.linalg.det(cell):
        raise UserError(
            f"{where} has a cell without volume ({np.asarray(cell).tolist()}); mend it, or, if "
            "these are molecules, add an empty file nopbc to the system"
        )
    return Structure(numbers, positions, right_handed(cell))
