"""The structures that are looked at: drawn from a converted set or from whatever ase reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from deepmd_mft.errors import UserError
from deepmd_mft.files.checksums import file_checksum
from deepmd_mft.structures.dataset import folder_checksum, open_dataset
from deepmd_mft.structures.elements import atomic_number

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Sample", "Structure", "read_sample"]


@dataclass(frozen=True)
class Structure:
    """One molecule or crystal.

    Parameters
    ----------
    numbers : np.ndarray
        Atomic numbers, shape ``nloc``; no virtual atoms.
    positions : np.ndarray
        In Angstrom, shape ``nloc x 3``.
    cell : np.ndarray or None
        Cell vectors in rows, in Angstrom, shape ``3 x 3``; None for a molecule.
    """

    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray | None = None

    def atoms(self) -> Any:
        """Return it as ``ase.Atoms``."""
        from ase import Atoms  # noqa: PLC0415

        periodic = self.cell is not None
        return Atoms(self.numbers, self.positions, cell=self.cell, pbc=periodic)


@dataclass(frozen=True)
class Sample:
    """Structures under one name; atoms are counted through all of them.

    Parameters
    ----------
    name : str
        What figures and tables call the set.
    structures : list of Structure
        In the order of the source.
    labels : np.ndarray or None
        One value a structure, if a property was asked for; shape ``nstructures``.
    record : dict
        Path, checksum and numbers, for the artefacts.
    """

    name: str
    structures: list[Structure]
    labels: np.ndarray | None
    record: dict[str, Any]

    def __len__(self) -> int:
        return len(self.structures)

    @property
    def sizes(self) -> np.ndarray:
        """Atoms of each structure, shape ``nstructures``."""
        return np.array([len(structure.numbers) for structure in self.structures])

    @property
    def starts(self) -> np.ndarray:
        """Number of the first atom of each structure, shape ``nstructures``."""
        return np.cumsum(self.sizes) - self.sizes

    @property
    def natoms(self) -> int:
        """Atoms of the whole set."""
        return int(self.sizes.sum())

    def with_elements(self, symbols: list[str]) -> Sample:
        """Return the structures that have no element outside ``symbols``."""
        known = {atomic_number(symbol) for symbol in symbols}
        keep = [i for i, s in enumerate(self.structures) if known.issuperset(s.numbers.tolist())]
        return Sample(
            self.name,
            [self.structures[i] for i in keep],
            None if self.labels is None else self.labels[keep],
            {**self.record, "structures": len(keep), "left out": len(self) - len(keep)},
        )


def read_sample(
    name: str,
    path: Path,
    *,
    prop: str | None = None,
    most: int | None = None,
    seed: int = 0,
) -> Sample:
    """Read a deepmd/npy folder, a deepmd LMDB, or a file that ase reads.

    Parameters
    ----------
    name : str
        What to call the set.
    path : Path
        Folder or file.
    prop : str, optional
        A scalar property to read with the structures (``info`` key in an ase file).
    most : int, optional
        Take that many structures at random, in their order; all by default.
    seed : int
        Seed of that draw.

    Returns
    -------
    Sample

    Raises
    ------
    UserError
        If there is nothing to read, or no such property.
    """
    if path.is_dir():
        dataset = open_dataset(path)
        total, checksum = len(dataset), folder_checksum(path)
        rows = _draw(total, most, seed)
        structures = [_structure(*parts) for parts in dataset.structures(rows)]
        labels = None if prop is None else dataset.label(prop)[rows]
    elif path.is_file():
        everything = _read_ase(path)
        total, checksum = len(everything), file_checksum(path)
        rows = _draw(total, most, seed)
        chosen = [everything[row] for row in rows]
        structures = [
            _structure(a.numbers, a.positions, np.asarray(a.cell) if a.pbc.any() else None)
            for a in chosen
        ]
        labels = None if prop is None else _ase_labels(chosen, prop, path)
    else:
        raise UserError(
            f"set {name}: {path} does not exist; give a folder of deepmd systems or a structure "
            "file"
        )
    if not structures:
        raise UserError(f"set {name}: {path} has no structures")
    record = {"path": str(path), "sha256": checksum, "structures": len(structures), "of": total}
    return Sample(name, structures, labels, record)


def _read_ase(path: Path) -> list[Any]:
    from deepmd_mft.data.readers.ase_file import iterate, require_ase  # noqa: PLC0415

    require_ase()
    return list(iterate(path))


def _ase_labels(chosen: list[Any], prop: str, path: Path) -> np.ndarray:
    missing = [i for i, atoms in enumerate(chosen) if prop not in atoms.info]
    if missing:
        known = ", ".join(sorted(chosen[missing[0]].info)) or "nothing"
        raise UserError(
            f"{path}: structure {missing[0]} has no property '{prop}' in its info (there: {known})"
        )
    return np.array([float(atoms.info[prop]) for atoms in chosen])


def _draw(total: int, most: int | None, seed: int) -> np.ndarray:
    if most is None or most >= total:
        return np.arange(total)
    return np.sort(np.random.default_rng(seed).choice(total, most, replace=False))


def _structure(numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray | None) -> Structure:
    real = np.asarray(numbers) > 0  # padding of mixed systems has no element
    return Structure(
        np.asarray(numbers)[real],
        np.asarray(positions, dtype=np.float64)[real],
        None if cell is None else np.asarray(cell, dtype=np.float64),
    )
