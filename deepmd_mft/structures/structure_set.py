"""A set of structures with its labels, whatever files it lies in."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from deepmd_mft.errors import UserError
from deepmd_mft.structures.batches import ATOMS_PER_BATCH, Batch, make_batches
from deepmd_mft.structures.elements import ELEMENTS, atomic_number, formula, symbol
from deepmd_mft.structures.memory import MemoryStore
from deepmd_mft.structures.places import find_set_folders, folder_checksum, open_stores
from deepmd_mft.structures.rows import Rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from deepmd_mft.structures.store import Store
    from deepmd_mft.structures.structure import Structure

__all__ = ["StructureSet", "find_sets"]


class StructureSet:
    """The structures and labels of one or more folders or files.

    Nothing but the table is read before it is asked for. Cells are right-handed.

    Parameters
    ----------
    name : str
        What tables and figures call the set.
    paths : list of Path
        Folders of deepmd/npy systems, LMDBs, files that ase reads.
    most : int, optional
        Take so many, drawn at random, if there are more.
    seed : int
        Seed of that draw.

    Attributes
    ----------
    total : int
        Structures in the files, of which ``len()`` were taken.
    parts : list of (Store, np.ndarray)
        Where the structures lie, and which rows are taken.
    type_map : list of str or None
        Names of the types of systems without ``type_map.raw``.
    """

    def __init__(
        self, name: str, paths: Sequence[Path], *, most: int | None = None, seed: int = 0
    ) -> None:
        self.name = name
        self.folders = list(paths)
        stores = open_stores(self.folders)
        self.total = sum(len(store.rows) for store in stores)
        if not self.total:
            raise UserError(f"{', '.join(map(str, paths))}: no structures in it")
        self.type_map: list[str] | None = None
        self.parts: list[tuple[Store, np.ndarray]] = [
            (store, np.arange(len(store.rows))) for store in stores
        ]
        if most is not None and most < self.total:
            rows = np.random.default_rng(seed).choice(self.total, most, replace=False)
            self.parts = self._divided(np.sort(rows))

    @classmethod
    def open(cls, path: Path) -> StructureSet:
        """Open the folder of a set of deepmd-kit's; the set is called as it is.

        Raises
        ------
        UserError
            If it is no folder, or there is nothing in it.
        """
        if not path.is_dir():
            raise UserError(f"{path} is not a folder; convert the data first (dp-mft convert)")
        return cls(path.resolve().name, [path])

    @classmethod
    def of(
        cls,
        name: str,
        structures: Sequence[Structure],
        labels: Sequence[dict[str, Any]] | None = None,
    ) -> StructureSet:
        """Return a set of structures in memory, with labels by name if there are any."""
        made = cls.__new__(cls)
        made.name, made.folders, made.total, made.type_map = name, [], len(structures), None
        made.parts = [(MemoryStore(structures, name, labels), np.arange(len(structures)))]
        return made

    # --- which structures -----------------------------------------------------------------------

    def __len__(self) -> int:
        return sum(len(rows) for _, rows in self.parts)

    @property
    def path(self) -> Path:
        """Where the set lies; the first place if there are several."""
        return self.parts[0][0].path

    @cached_property
    def rows(self) -> Rows:
        """The table: names, molecules, groups, places; unique names where several files count."""
        parts = []
        for store, chosen in self.parts:
            rows = store.rows if len(chosen) == len(store.rows) else store.rows.take(chosen)
            parts.append(rows)
        return Rows.join(parts)

    @property
    def ids(self) -> list[str]:
        """Name of every structure."""
        return self.rows.ids

    @property
    def smiles(self) -> list[str]:
        """Molecule of every structure; empty where the set does not say."""
        return self.rows.smiles

    @cached_property
    def groups(self) -> list[str]:
        """What every structure belongs together with; empty where the set does not say.

        Equal groups of sets from different sources differ here.
        """
        return [
            f"{origin}:{group}" if group else ""
            for store, chosen in self.parts
            for origin in [_origin(store)]
            for group in store.rows.take(chosen).groups
        ]

    def take(self, chosen: np.ndarray) -> StructureSet:
        """Return some of the structures, given by ascending row numbers."""
        part = StructureSet.__new__(StructureSet)
        part.name, part.folders, part.total = self.name, self.folders, self.total
        part.type_map, part.parts = self.type_map, self._divided(chosen)
        if "structures" in self.__dict__:
            part.structures = [self.structures[row] for row in chosen]
        return part

    def rows_at(self, path: Path) -> np.ndarray:
        """Return the rows that lie at a path or below it; paths as the set was given them.

        Systems of one table are read in its order, wherever they were named.
        """
        found, start = [], 0
        for store, chosen in self.parts:
            systems = store.rows.take(chosen).systems
            places = {name: store.path / name for name in set(systems)}
            own = {name for name, at in places.items() if path == at or path in at.parents}
            found.append(start + np.flatnonzero([name in own for name in systems]))
            start += len(chosen)
        return np.concatenate(found)

    def with_type_map(self, type_map: list[str]) -> StructureSet:
        """Return the set with names for the types of systems without ``type_map.raw``."""
        if all(store.knows_elements for store, _ in self.parts):
            return self
        named = self.take(np.arange(len(self)))
        named.__dict__.pop("structures", None)
        named.type_map = list(type_map)
        return named

    def with_some_names(self) -> StructureSet:
        """Return the set with H, He, Li, ... for types without a name: to compare, to count."""
        return self.with_type_map(list(ELEMENTS))

    def with_elements(self, symbols: list[str]) -> tuple[StructureSet, str]:
        """Leave out the structures with an element that is not among ``symbols``.

        Returns
        -------
        StructureSet
            What is left.
        str
            What was left out, in words; empty if nothing was.
        """
        known = {atomic_number(name) for name in symbols}
        absent = [set(np.unique(one.numbers).tolist()) - known for one in self.structures]
        keep = np.array([not one for one in absent], dtype=bool)
        if keep.all():
            return self, ""
        names = ", ".join(symbol(z) for z in sorted(set().union(*absent)))
        first = self.ids[int(np.argmin(keep))]
        return self.take(np.flatnonzero(keep)), (
            f"{self.name}: {(~keep).sum()} of {len(self)} structures have {names}, which not every "
            f"checkpoint knows, and are left out (first: {first})"
        )

    def _divided(self, chosen: np.ndarray) -> list[tuple[Store, np.ndarray]]:
        starts = np.cumsum([0, *(len(rows) for _, rows in self.parts)])
        return [
            (store, rows[chosen[(chosen >= start) & (chosen < start + len(rows))] - start])
            for (store, rows), start in zip(self.parts, starts, strict=False)
        ]

    # --- structures -----------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Structure]:
        """Yield the structures in order, read as they are asked for."""
        if "structures" in self.__dict__:
            yield from self.structures
            return
        for store, rows in self.parts:
            yield from store.structures(rows, self.type_map)

    @cached_property
    def structures(self) -> list[Structure]:
        """All structures, held in memory from the first use on."""
        return list(self)

    @cached_property
    def natoms(self) -> np.ndarray:
        """Number of atoms of every structure, nframes."""
        return np.array([len(one.numbers) for one in self.with_some_names()])

    @property
    def starts(self) -> np.ndarray:
        """Number of the first atom of every structure, counted through the set; nframes."""
        return np.cumsum(self.natoms) - self.natoms

    @cached_property
    def elements(self) -> list[np.ndarray]:
        """Different atomic numbers of every structure, ascending."""
        return [np.unique(one.numbers) for one in self.structures]

    @property
    def formulas(self) -> list[str]:
        """Formula of every structure."""
        return [formula(one.numbers) for one in self.structures]

    def batches(
        self,
        type_map: list[str],
        *,
        dim_fparam: int = 0,
        default_fparam: Sequence[float] | None = None,
        atoms: int = ATOMS_PER_BATCH,
    ) -> list[Batch]:
        """Return all structures in batches of equal size, smallest first.

        Parameters
        ----------
        type_map : list of str
            The model's elements.
        dim_fparam : int
            Frame parameters that the model takes.
        default_fparam : sequence of float, optional
            Those that it takes for a structure without any.
        atoms : int
            Atoms in a batch; a larger structure is a batch of its own.

        Raises
        ------
        UserError
            If a structure has an element that the model does not know, or frame parameters are
            missing.
        """
        structures = self.with_type_map(type_map).structures
        fparam = self.frame_parameters(dim_fparam, default_fparam)
        return make_batches(structures, type_map, self.ids, self.name, fparam=fparam, atoms=atoms)

    # --- labels ---------------------------------------------------------------------------------

    @cached_property
    def units(self) -> dict[str, str]:
        """Unit of every label, as far as the files say.

        Raises
        ------
        UserError
            If two of the files say different things.
        """
        units: dict[str, str] = {}
        for store, _ in self.parts:
            for name, unit in store.record.get("units", {}).items():
                if units.setdefault(name, unit) != unit:
                    raise UserError(
                        f"set {self.name}: {name} is in {unit} in {store.path}, but in "
                        f"{units[name]} elsewhere; convert them to one unit"
                    )
        return units

    def labels(self, name: str, columns: int | None = None) -> np.ndarray | None:
        """Return a label of every structure.

        Parameters
        ----------
        name : str
            Name of the label.
        columns : int, optional
            Columns that it must have.

        Returns
        -------
        np.ndarray or None
            nframes x columns, NaN where a structure has none; None if all have none.

        Raises
        ------
        UserError
            If it has another number of columns, or several.
        """
        values: np.ndarray | None = None
        for store, positions, block in self.label_blocks(name):
            width = block.shape[1]
            if columns is not None and width != columns:
                raise UserError(
                    f"{store.path}: {name} has {width} column(s), but {columns} are expected; use "
                    "the model that was trained on this label, or mend task_dim"
                )
            if values is None:
                values = np.full((len(self), width), np.nan)
            if width != values.shape[1]:
                raise UserError(
                    f"{store.path}: label {name!r} has {width} columns in some structures "
                    f"(first: {self.ids[positions[0]]}) and {values.shape[1]} in others; mend it"
                )
            values[positions] = block
        return values

    def label_blocks(self, name: str) -> Iterator[tuple[Store, np.ndarray, np.ndarray]]:
        """Yield store, row numbers and labels (nrows x width), as far as there are any."""
        start = 0
        for store, rows in self.parts:
            for positions, block in store.blocks(name, rows):
                yield store, positions + start, block
            start += len(rows)

    def label(self, name: str) -> np.ndarray:
        """Return a scalar label that every structure has, nframes.

        Raises
        ------
        UserError
            If a structure has none, or it is no scalar.
        """
        values = self.labels(name)
        if values is None:
            known = ", ".join(self.label_names()) or "none"
            raise UserError(f"no label {name!r} in {self.path}; there are {known}")
        if values.shape[1] != 1:
            raise UserError(f"{name} has {values.shape[1]} components; a scalar is needed")
        bad = np.flatnonzero(~np.isfinite(values[:, 0]))
        if bad.size:
            raise UserError(
                f"{name} is missing or NaN in {bad.size} of {len(self)} rows of {self.path}, the "
                f"first {bad[0]} ({self.ids[bad[0]]}); convert without --keep-nan, or remove them"
            )
        return values[:, 0]

    def label_names(self) -> list[str]:
        """Names of the labels of the first structure of each file."""
        names = {
            name
            for store, rows in self.parts
            for row in rows[:1].tolist()
            for name in store.label_names(row)
        }
        return sorted(names)

    def frame_parameters(
        self, columns: int, default: Sequence[float] | None = None
    ) -> np.ndarray | None:
        """Return ``fparam``, nframes x columns; None for a model that takes none.

        Parameters
        ----------
        columns : int
        default : sequence of float, optional
            For structures without any.

        Raises
        ------
        UserError
            If there is no default, and the set has none, or not for all structures; or if they are
            of another width.
        """
        if not columns:
            return None
        values = self.labels("fparam", columns)
        if default is not None:
            values = np.full((len(self), columns), np.nan) if values is None else values
            return np.where(np.isnan(values), np.asarray(default), values)
        bad = [0] if values is None else np.flatnonzero(~np.isfinite(values).all(axis=1))
        if values is None or len(bad):
            raise UserError(
                f"set {self.name}: the model takes {columns} frame parameter(s), but structure "
                f"{self.ids[bad[0]]} has none (fparam.npy, one row for each frame)"
            )
        return values

    def rms_force(self) -> float | None:
        """Return the rms of ``force`` over atoms and directions; None if a part has no forces."""
        total, count = 0.0, 0
        for _, rows, force in self.label_blocks("force"):
            total += float(np.sum(np.square(force, dtype=np.float64)))
            count += len(rows)
        if count < len(self):
            return None
        return float(np.sqrt(total / (3 * self.natoms.sum())))

    # --- on disk --------------------------------------------------------------------------------

    def write_part(self, chosen: np.ndarray, out: Path) -> None:
        """Write the rows ``chosen`` (ascending) as a set of the same format.

        Parameters
        ----------
        chosen : np.ndarray
            Row numbers.
        out : Path
            An empty folder.
        """
        [(store, rows)] = self.parts
        store.write_part(rows[chosen], out)

    def checksum(self) -> list[dict[str, str]]:
        """Return path, as given, and SHA-256 of every folder; sets of equal SHA-256 are equal."""
        return [{"path": str(path), "sha256": folder_checksum(path)} for path in self.folders]

    @property
    def record(self) -> dict[str, Any]:
        """Places, checksums and numbers, for the artefacts."""
        first, *others = self.checksum()
        more = {"more": others} if others else {}
        return {**first, **more, "structures": len(self), "of": self.total}

    @property
    def split_method(self) -> str | None:
        """Method of ``dp-mft split`` that made the set; None if there is no ``split.json``."""
        for above in list(self.path.resolve().parents)[:2]:  # a fold has a folder of its own
            if (above / "split.json").is_file():
                try:
                    return str(json.loads((above / "split.json").read_text())["method"])
                except (OSError, ValueError, KeyError, TypeError):
                    return None  # somebody else's file of that name
        return None


def _origin(store: Store) -> str:
    """Say what a set was converted from; parts of one set have the same."""
    files = [
        (file.get("bytes"), file.get("sha256") or file.get("path"))
        for file in store.record.get("files", [])
        if isinstance(file, dict)
    ]
    home = store.record.get("part_of", str(store.path.resolve()))
    return hashlib.sha256(json.dumps(files or home).encode()).hexdigest()


def find_sets(folders: Sequence[Path], chosen: Sequence[str] | None = None) -> list[StructureSet]:
    """Open the sets of split folders (:func:`~deepmd_mft.structures.places.find_set_folders`)."""
    return [StructureSet(name, [path]) for name, path in find_set_folders(folders, chosen).items()]
