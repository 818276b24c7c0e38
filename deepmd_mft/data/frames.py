"""What flows from the readers to the writers: frames of one molecule or crystal.

A reader is a function that returns a :class:`Source`; its ``frames`` yield
:class:`Frames` (and :class:`Skipped` for what could not be read) one after the other, so
that no step holds a whole data set in memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np

__all__ = ["FORCE_FIELD_UNITS", "Frames", "Skipped", "Source"]

#: Labels with a meaning of their own in deepmd-kit, and their units here.
FORCE_FIELD_UNITS = {"energy": "eV", "force": "eV/A", "virial": "eV"}


@dataclass
class Frames:
    """One or more structures of the same list of atoms.

    Parameters
    ----------
    numbers : np.ndarray
        Atomic numbers, shape ``nloc``.
    coords : np.ndarray
        Positions in Angstrom, shape ``nf x nloc x 3``.
    cells : np.ndarray, optional
        Cell vectors in rows, in Angstrom, shape ``nf x 3 x 3``; None for a molecule.
    labels : dict of str to np.ndarray
        First axis ``nf``. ``energy`` (eV, ``nf``), ``force`` (eV/A, ``nf x nloc x 3``),
        ``virial`` (eV, ``nf x 3 x 3``, deepmd-kit's sign: minus stress times volume) and
        properties by name (``nf x dim``, in the unit that ``Source.units`` names).
    ids : list of str
        One name per structure, unique in the source.
    smiles : str
        SMILES of the molecule, or empty.
    group : str
        What must never be divided between training and test; empty for ``smiles``. In a source
        that is ``grouped``, what has one label.
    pbc : tuple of bool
        Along which cell vectors the structure repeats; without cells it means nothing.
    occupancy : float
        The largest share that one element has of a site, at the site where it is smallest:
        below 1 the structure is disordered.
    charge : float, optional
        Total charge in elementary charges, where the source states it.
    remarks : list of str
        What a user should know about these frames; each is counted in the summary.
    """

    numbers: np.ndarray
    coords: np.ndarray
    labels: dict[str, np.ndarray]
    ids: list[str]
    cells: np.ndarray | None = None
    smiles: str = ""
    group: str = ""
    pbc: tuple[bool, bool, bool] = (True, True, True)
    occupancy: float = 1.0
    charge: float | None = None
    remarks: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.coords)

    def select(self, keep: np.ndarray) -> Frames:
        """Return the frames where the boolean mask ``keep`` (shape ``nf``) is true."""
        return replace(
            self,
            coords=self.coords[keep],
            labels={name: value[keep] for name, value in self.labels.items()},
            ids=[i for i, kept in zip(self.ids, keep, strict=True) if kept],
            cells=None if self.cells is None else self.cells[keep],
        )


@dataclass
class Skipped:
    """A structure that was left out, and why."""

    id: str
    reason: str


@dataclass
class Source:
    """A data set about to be read.

    Parameters
    ----------
    name : str
        The reader, for example ``qm9``.
    files : list of Path
        What is read.
    units : dict of str to str
        Unit of every property.
    frames : iterator of Frames or Skipped
        The content, in the order of the files.
    total : int, optional
        How many structures to expect, for the progress bar.
    notes : list of str
        What a user should know about this source (level of theory, how the geometry
        was made).
    grouped : bool
        Whether one label belongs to all structures of a group.
    """

    name: str
    files: list[Path]
    units: dict[str, str]
    frames: Iterator[Frames | Skipped]
    total: int | None = None
    notes: list[str] = field(default_factory=list)
    grouped: bool = False
