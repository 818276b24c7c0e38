"""A set of structures in memory, in batches of equal size for the model."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from deepmd_mft.errors import UserError
from deepmd_mft.structures.dataset import folder_checksum, open_dataset
from deepmd_mft.structures.elements import ELEMENTS, atomic_number

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from deepmd_mft.structures.dataset import DataSet

#: Atoms in a batch: large enough to fill a core's vector units, small enough for its caches.
ATOMS_PER_BATCH = 512


@dataclass(frozen=True)
class Batch:
    """Structures with the same number of atoms.

    Attributes
    ----------
    rows : np.ndarray
        Which structures of the set, nf.
    coord : torch.Tensor
        nf x nloc x 3, in Angstrom.
    atype : torch.Tensor
        nf x nloc, indices into a type map; no padding.
    box : torch.Tensor or None
        nf x 9, in Angstrom; None for molecules.
    fparam : torch.Tensor or None
        nf x dim_fparam, frame parameters; None if the model takes none.
    """

    rows: np.ndarray
    coord: torch.Tensor
    atype: torch.Tensor
    box: torch.Tensor | None
    fparam: torch.Tensor | None


class StructureSet:
    """The structures and labels of one or more folders.

    Parameters
    ----------
    name : str
        What tables call the set.
    folders : list of Path
        deepmd/npy systems or LMDB.
    most : int, optional
        Take so many, drawn at random, if there are more.

    Attributes
    ----------
    total : int
        Structures in the folders, of which ``len()`` were taken.
    ids, smiles, groups : list of str
        Name, molecule and group of every structure; the last two are empty where the set does
        not say. Equal groups of sets from different sources differ here.
    """

    def __init__(self, name: str, folders: list[Path], most: int | None = None) -> None:
        self.name = name
        self.folders = folders
        opened = [open_dataset(folder) for folder in folders]
        self.total = sum(map(len, opened))
        self._data: list[tuple[DataSet, np.ndarray]] = _draw(opened, self.total, most)
        structures = [one for data, rows in self._data for one in data.structures(rows)]
        self.numbers = [numbers for numbers, _, _ in structures]
        self.coords = [coords for _, coords, _ in structures]
        self.cells = [cell for _, _, cell in structures]
        self.ids = [data.rows.ids[row] for data, rows in self._data for row in rows]
        self.smiles = [data.rows.smiles[row] for data, rows in self._data for row in rows]
        self.groups = [data.named_group(row) for data, rows in self._data for row in rows]

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def natoms(self) -> np.ndarray:
        """Number of atoms of every structure."""
        return np.array([len(numbers) for numbers in self.numbers])

    @property
    def formulas(self) -> list[str]:
        """Formula of every structure, C and H first, then by name."""
        texts = []
        for numbers in self.numbers:
            counts = Counter(ELEMENTS[z - 1] for z in numbers)
            order = sorted(counts, key=lambda e: ({"C": 0, "H": 1}.get(e, 2), e))
            texts.append("".join(f"{e}{counts[e] if counts[e] > 1 else ''}" for e in order))
        return texts

    @property
    def unit(self) -> dict[str, str]:
        """Units of the labels, as far as the set says."""
        return {k: v for data, _ in self._data for k, v in data.units.items()}

    @property
    def split_method(self) -> str | None:
        """Method of ``dp-mft split`` that made the set; None if there is no ``split.json``."""
        for above in list(self.folders[0].resolve().parents)[:2]:  # a fold has a folder of its own
            if (above / "split.json").is_file():
                try:
                    return str(json.loads((above / "split.json").read_text())["method"])
                except (ValueError, KeyError, TypeError):
                    return None  # somebody else's file of that name
        return None

    def labels(self, name: str, columns: int) -> np.ndarray | None:
        """Return the labels, nframes x columns, NaN where missing; None if there are none.

        Raises
        ------
        UserError
            If the label has another number of columns than the model.
        """
        parts: list[np.ndarray] = []
        found = False
        for data, rows in self._data:
            values = data.optional_label(name, rows)
            if values is None:
                parts.append(np.full((len(rows), columns), np.nan))
                continue
            if values.shape[1] != columns:
                raise UserError(
                    f"{data.path}: {name} has {values.shape[1]} column(s), the model predicts "
                    f"{columns}; evaluate with the model that was trained on this label"
                )
            found = True
            parts.append(values.astype(np.float64))
        return np.concatenate(parts) if found else None

    def rms_force(self) -> float | None:
        """Return the rms of ``force`` over atoms and directions; None if a part has no forces."""
        total, count = 0.0, 0
        for data, rows in self._data:
            for _, force in data.label_blocks("force", rows):
                total += float(np.sum(np.square(force, dtype=np.float64)))
                count += len(force)
        if count < len(self):
            return None
        return float(np.sqrt(total / (3 * self.natoms.sum())))

    def checksum(self) -> list[dict[str, str]]:
        """Return path and SHA-256 of every folder, for the record."""
        return [{"path": str(f.resolve()), "sha256": folder_checksum(f)} for f in self.folders]

    def frame_parameters(self, columns: int) -> np.ndarray | None:
        """Return ``fparam``, nframes x columns; None for a model that takes none.

        Raises
        ------
        UserError
            If the set has none, or of another width.
        """
        if not columns:
            return None
        parts = []
        for data, rows in self._data:
            values = data.optional_label("fparam", rows)
            found = None if values is None else values.shape[1]
            if values is None or found != columns or np.isnan(values).any():
                raise UserError(
                    f"{data.path}: the model takes {columns} frame parameter(s), fparam.npy "
                    + (f"has {found} or lacks some rows" if found else "does not exist")
                    + "; write one row a frame"
                )
            parts.append(values)
        return np.concatenate(parts)

    def batches(
        self, type_map: list[str], dim_fparam: int = 0, atoms_per_batch: int = ATOMS_PER_BATCH
    ) -> list[Batch]:
        """Return all structures in batches of equal size, smallest first.

        Parameters
        ----------
        type_map : list of str
            The model's elements.
        dim_fparam : int
            Frame parameters that the model takes.
        atoms_per_batch : int
            Atoms in a batch; a larger structure is a batch of its own.

        Raises
        ------
        UserError
            If a structure has an element that the model does not know, or frame parameters are
            missing.
        """
        fparam = self.frame_parameters(dim_fparam)
        lookup = np.full(len(ELEMENTS) + 1, -1)
        for index, symbol in enumerate(type_map):
            lookup[atomic_number(symbol)] = index
        groups: dict[tuple[int, bool], list[int]] = {}
        for row, numbers in enumerate(self.numbers):
            if (lookup[numbers] < 0).any():
                absent = sorted({ELEMENTS[z - 1] for z in numbers[lookup[numbers] < 0]})
                raise UserError(
                    f"{self.name}: structure {self.ids[row]} has {', '.join(absent)}, which the "
                    f"model's type_map lacks ({', '.join(type_map[:20])}); remove it from the set, "
                    "or train with a type_map that has it"
                )
            groups.setdefault((len(numbers), self.cells[row] is None), []).append(row)
        batches = []
        for (natoms, molecule), rows in sorted(groups.items()):
            step = max(1, atoms_per_batch // natoms)
            for start in range(0, len(rows), step):
                part = rows[start : start + step]
                cells = None if molecule else np.array([self.cells[r] for r in part])
                batches.append(
                    Batch(
                        np.array(part),
                        _tensor(np.stack([self.coords[r] for r in part])),
                        torch.as_tensor(lookup[np.stack([self.numbers[r] for r in part])]),
                        None if cells is None else _tensor(cells.reshape(len(part), 9)),
                        None if fparam is None else _tensor(fparam[part]),
                    )
                )
        return batches


def _draw(opened: list[DataSet], total: int, most: int | None) -> list[tuple[DataSet, np.ndarray]]:
    """Return the rows to take of each set, in order."""
    if most is None or total <= most:
        return [(data, np.arange(len(data))) for data in opened]
    rows = np.sort(np.random.default_rng(0).choice(total, most, replace=False))
    starts = np.cumsum([0, *map(len, opened)])
    return [
        (data, rows[(rows >= start) & (rows < start + len(data))] - start)
        for data, start in zip(opened, starts, strict=False)
    ]


def _tensor(values: np.ndarray) -> torch.Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def find_sets(folders: Iterable[Path], chosen: list[str] | None = None) -> Iterator[StructureSet]:
    """Find the sets of split folders.

    Parameters
    ----------
    folders : iterable of Path
        A set itself (with ``type.raw``, ``rows.csv`` or ``data.mdb``), or a folder of sets.
    chosen : list of str, optional
        Names of the sets wanted. Without it, all but those called ``aux*``.

    Yields
    ------
    StructureSet

    Raises
    ------
    UserError
        If there is nothing, or a wanted set is missing.
    """
    seen: dict[str, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder")
        for path in [folder] if _is_set(folder) else sorted(filter(_holds_data, folder.iterdir())):
            if path.name in seen:
                raise UserError(
                    f"two sets are called {path.name}: {seen[path.name]} and {path}; rename one, "
                    "or evaluate them one after the other"
                )
            seen[path.name] = path
    wanted = chosen or [name for name in seen if not name.startswith("aux")]
    for name in wanted:
        if name not in seen:
            raise UserError(f"no set '{name}'; there are {', '.join(seen) or 'none'}")
    if not wanted:
        listed = ", ".join(map(str, folders))
        raise UserError(f"no deepmd-kit systems in {listed} (no type.raw, no data.mdb below it)")
    for name in wanted:
        yield StructureSet(name, [seen[name]])


def _is_set(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("type.raw", "rows.csv", "data.mdb"))


def _holds_data(folder: Path) -> bool:
    return folder.is_dir() and (_is_set(folder) or next(folder.rglob("type.raw"), None) is not None)
