"""Structures in memory: of a file that ase reads, or made by a program."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deepmd_mft.errors import UserError
from deepmd_mft.files.checksums import file_checksum
from deepmd_mft.structures.rows import Rows
from deepmd_mft.structures.store import Store
from deepmd_mft.structures.structure import Structure, checked

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from deepmd_mft.structures.store import Block

__all__ = ["AseStore", "MemoryStore"]


class MemoryStore(Store):
    """A list of structures.

    Parameters
    ----------
    structures : sequence of Structure
    name : str
        What rows are named after.
    labels : sequence of dict, optional
        Labels of every structure by name, each of any shape.
    """

    def __init__(
        self,
        structures: Sequence[Structure],
        name: str = "structures",
        labels: Sequence[dict[str, Any]] | None = None,
    ) -> None:
        self.path = Path(name)
        self.record = {}
        self.rows = Rows.count(name, {".": len(structures)})
        self._structures = structures
        self._labels = labels or [{}] * len(structures)

    @property
    def knows_elements(self) -> bool:
        """Elements are given by number."""
        return True

    def structures(
        self, chosen: np.ndarray, type_map: list[str] | None = None
    ) -> Iterator[Structure]:
        """Yield the structures of the rows ``chosen``, in order."""
        del type_map  # the elements are known
        return (self._structures[row] for row in chosen.tolist())

    def blocks(self, name: str, chosen: np.ndarray) -> Iterator[Block]:
        """Yield a label of the rows ``chosen``, row by row."""
        for position, row in enumerate(chosen.tolist()):
            if name in self._labels[row]:
                try:
                    values = np.asarray(self._labels[row][name], dtype=np.float64)
                except (TypeError, ValueError):
                    raise UserError(
                        f"{self.path}, structure {row}: {name} = {self._labels[row][name]!r} is no "
                        "number"
                    ) from None
                yield np.array([position]), values.reshape(1, -1)

    def label_names(self, row: int) -> list[str]:
        """Return the names of the labels of a structure."""
        return sorted(map(str, self._labels[row]))

    def checksum(self) -> str:
        """SHA-256 over the structures."""
        digest = hashlib.sha256()
        for one in self._structures:
            for array in one:
                digest.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


class AseStore(MemoryStore):
    """A file that ase reads; labels from ``info`` and from the results kept with a structure.

    Parameters
    ----------
    path : Path
        The file.
    """

    def __init__(self, path: Path) -> None:
        from deepmd_mft.data.check import FULL  # noqa: PLC0415
        from deepmd_mft.data.readers.ase_file import (  # noqa: PLC0415
            iterate,
            occupancy,
            require_ase,
        )

        require_ase()
        every = list(iterate(path))
        structures = []
        for number, atoms in enumerate(every):
            where = f"{path}, structure {number}"
            if atoms.pbc.any() and not atoms.pbc.all():
                raise UserError(
                    f"{where} is periodic in some directions only, which a network cannot take; "
                    "make it fully periodic with vacuum, or a molecule"
                )
            if not occupancy(atoms) >= FULL:
                raise UserError(
                    f"{where} has sites with partial occupation, which a network cannot take; "
                    "replace it by an ordered structure, or remove it"
                )
            cell = np.array(atoms.cell) if atoms.pbc.all() else None
            numbers = atoms.numbers.astype(np.int64)
            structures.append(checked(numbers, atoms.positions.astype(np.float64), cell, where))
        results = [{} if atoms.calc is None else atoms.calc.results for atoms in every]
        labels = [{**r, **atoms.info} for r, atoms in zip(results, every, strict=True)]
        super().__init__(structures, path.name, labels)
        self.path = path

    def checksum(self) -> str:
        """SHA-256 of the file."""
        return file_checksum(self.path)
