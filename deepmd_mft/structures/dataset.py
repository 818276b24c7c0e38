"""Reading a converted set back: rows, labels, structures, and parts of it.

:func:`open_dataset` takes what ``dp-mft convert`` wrote, and any other deepmd/npy folder or
deepmd LMDB too; those have no ``rows.csv``, so their rows are counted in the order of the
system folders' names.
"""

from __future__ import annotations

import csv
import hashlib
import json
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import lmdb
import msgpack
import numpy as np

from deepmd_mft.data.writers.base import ROW_FIELDS
from deepmd_mft.data.writers.lmdb import DISK_NAMES, metadata, open_new
from deepmd_mft.errors import UserError
from deepmd_mft.files.checksums import file_checksum
from deepmd_mft.files.lmdb import check_complete
from deepmd_mft.files.names import path_below
from deepmd_mft.structures.elements import atomic_number

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["DataSet", "Rows", "folder_checksum", "open_dataset"]

#: Atomic numbers, positions, cell.
Structure: TypeAlias = "tuple[np.ndarray, np.ndarray, np.ndarray | None]"


@dataclass
class Rows:
    """The table of a data set, one entry a row.

    Parameters
    ----------
    ids, smiles, groups, systems : list of str
        Name, molecule, what stays together, folder.
    source_rows, frames : np.ndarray
        Row in the source; frame in the system.
    """

    ids: list[str]
    smiles: list[str]
    groups: list[str]
    systems: list[str]
    source_rows: np.ndarray
    frames: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def read(cls, path: Path) -> Rows:
        """Read ``rows.csv``."""
        columns: list[list[str]] = [[] for _ in ROW_FIELDS]
        try:
            with path.open(newline="", encoding="utf-8") as handle:
                table = csv.reader(handle)
                if tuple(next(table, [])[: len(ROW_FIELDS)]) != ROW_FIELDS:
                    raise UserError(f"{path}: not a table of rows written by dp-mft convert")
                for row in table:
                    if len(row) < len(ROW_FIELDS):
                        raise UserError(
                            f"{path}, line {table.line_num}: {len(row)} fields instead of "
                            f"{len(ROW_FIELDS)}; was the table cut off?"
                        )
                    for column, value in zip(columns, row, strict=False):
                        column.append(value)
        except (UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"{path} cannot be read as a table ({error})") from None
        _, ids, smiles, groups, source_rows, systems, frames = columns
        for system in dict.fromkeys(systems):
            path_below(system, f"{path}, column system")
        return cls(
            ids,
            smiles,
            groups,
            systems,
            _whole_numbers(source_rows, f"{path}, column source_row"),
            _whole_numbers(frames, f"{path}, column frame"),
        )

    @classmethod
    def count(cls, systems: dict[str, int]) -> Rows:
        """Count the frames of systems that have no ``rows.csv``."""
        folders = [name for name, n in systems.items() for _ in range(n)]
        frames = np.concatenate([np.arange(n) for n in systems.values()])
        ids = [f"{name}:{i}" for name, i in zip(folders, frames, strict=True)]
        empty = [""] * len(ids)
        return cls(ids, empty, empty, folders, np.arange(len(ids)), frames)

    def write(self, path: Path, chosen: np.ndarray, places: dict[int, tuple[str, int]]) -> None:
        """Write the rows ``chosen`` as the ``rows.csv`` of a part of this set.

        Parameters
        ----------
        path : Path
            The file.
        chosen : np.ndarray
            Row numbers.
        places : dict
            Row number to system and frame in the part.
        """
        with path.open("w", newline="", encoding="utf-8") as handle:
            table = csv.writer(handle, lineterminator="\n")
            table.writerow(ROW_FIELDS)
            for row in chosen.tolist():
                common = (self.ids[row], self.smiles[row], self.groups[row], self.source_rows[row])
                table.writerow((row, *common, *places[row]))


def _whole_numbers(texts: list[str], where: str) -> np.ndarray:
    wrong = next((text for text in texts if not (text.isascii() and text.isdecimal())), None)
    if wrong is not None:
        raise UserError(f"{where}: {wrong!r} is not a row number (row {texts.index(wrong)})")
    return np.array(texts, dtype=np.int64)


class DataSet:
    """A deepmd-kit data set that can be looked at and divided by row.

    Use :func:`open_dataset`.

    Parameters
    ----------
    path : Path
        Folder of the set.
    """

    kind = ""

    def __init__(self, path: Path) -> None:
        self.path = path
        record = path / "dataset.json"
        self.record: dict[str, Any] = json.loads(record.read_text()) if record.is_file() else {}
        self.rows = self._load_rows()
        if not len(self.rows):
            raise UserError(f"{path} has no rows")

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def units(self) -> dict[str, str]:
        """Unit of every label, as far as the set says."""
        return dict(self.record.get("units", {}))

    def named_group(self, row: int) -> str:
        """Return the group of a row, told apart from equal names of another source."""
        group = self.rows.groups[row]
        return f"{self._origin}:{group}" if group else ""

    @cached_property
    def _origin(self) -> str:
        """What the set was converted from; parts of one set have the same."""
        files = [
            (file.get("bytes"), file.get("sha256") or file.get("path"))
            for file in self.record.get("files", [])
        ]
        home = self.record.get("part_of", str(self.path.resolve()))
        return hashlib.sha256(json.dumps(files or home).encode()).hexdigest()

    def _load_rows(self) -> Rows:
        table = self.path / "rows.csv"
        return Rows.read(table) if table.is_file() else Rows.count(self._systems())

    def label(self, name: str) -> np.ndarray:
        """Return one scalar label of every row, shape ``nrows``."""
        values = self._label(name)
        if values.ndim != 1:
            raise UserError(f"{name} has {values.shape[1]} components; a split needs a scalar")
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            raise UserError(
                f"{name} is NaN in {bad.size} rows of {self.path}, the first {bad[0]} "
                f"({self.rows.ids[bad[0]]}); convert without --keep-nan"
            )
        return values

    def _systems(self) -> dict[str, int]:
        raise NotImplementedError

    def _label(self, name: str) -> np.ndarray:
        raise NotImplementedError

    def optional_label(self, name: str, chosen: np.ndarray | None = None) -> np.ndarray | None:
        """Return a label of the rows ``chosen`` (all by default).

        Returns
        -------
        np.ndarray or None
            nrows x ncomponents, NaN where missing; None if all are.
        """
        blocks = list(self.label_blocks(name, chosen))
        if not blocks:
            return None
        widths = {block.shape[1] for _, block in blocks}
        if len(widths) > 1:
            raise UserError(f"{self.path}: label {name!r} has {sorted(widths)} components; mend it")
        values = np.full((len(self), widths.pop()), np.nan)
        for rows, block in blocks:
            values[rows] = block
        return values if chosen is None else values[chosen]

    def label_blocks(
        self, name: str, chosen: np.ndarray | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield rows (of ``chosen``, all by default) and their labels, as far as there are any."""
        raise NotImplementedError

    def structures(self, chosen: np.ndarray | None = None) -> Iterator[Structure]:
        """Yield atomic numbers, positions and cell (or None) of the rows ``chosen``, in order.

        All rows by default.
        """
        raise NotImplementedError

    def write_part(self, chosen: np.ndarray, out: Path) -> None:
        """Write the rows ``chosen`` (ascending) as a data set of the same kind."""
        raise NotImplementedError

    def _finish_part(
        self, chosen: np.ndarray, out: Path, places: dict[int, tuple[str, int]]
    ) -> None:
        self.rows.write(out / "rows.csv", chosen, places)
        keep = ("format", "kind", "type_map", "reader", "files", "notes", "units")
        record = {key: self.record[key] for key in keep if key in self.record}
        record.update(rows=len(chosen), part_of=str(self.path.resolve()))
        (out / "dataset.json").write_text(json.dumps(record, indent=1) + "\n")


class NpySet(DataSet):
    """deepmd/npy, mixed or not."""

    kind = "npy"

    def _systems(self) -> dict[str, int]:
        counts = {}
        for marker in sorted(self.path.rglob("type.raw")):
            name = marker.parent.relative_to(self.path).as_posix()
            coords = self._arrays(name, "coord")
            counts[name] = sum(len(array) for array in coords)
        if not counts:
            raise UserError(f"{self.path} holds no deepmd-kit systems (no type.raw below it)")
        return counts

    def _arrays(self, system: str, name: str) -> list[np.ndarray]:
        paths = sorted((self.path / system).glob(f"set.*/{name}.npy"))
        return [np.load(path, mmap_mode="r") for path in paths]

    def _stacked(self, system: str, name: str) -> np.ndarray:
        arrays = self._arrays(system, name)
        if not arrays:
            raise UserError(f"{self.path / system} has no {name}.npy")
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)

    def _by_system(self, chosen: np.ndarray | None = None) -> dict[str, np.ndarray]:
        rows = np.arange(len(self)) if chosen is None else chosen
        parts: dict[str, list[int]] = {}
        for row in rows.tolist():
            parts.setdefault(self.rows.systems[row], []).append(row)
        return {name: np.array(part) for name, part in parts.items()}

    def _label(self, name: str) -> np.ndarray:
        values: np.ndarray | None = None
        for system, rows in self._by_system().items():
            try:
                array = self._stacked(system, name)
            except UserError:
                known = ", ".join(sorted(p.stem for p in self.path.glob(f"{system}/set.*/*.npy")))
                raise UserError(
                    f"no label {name!r} in {self.path / system}; there are {known}"
                ) from None
            block = array.reshape(len(array), -1)[self.rows.frames[rows]]
            if values is None:
                values = np.empty((len(self), block.shape[1]))
            values[rows] = block
        assert values is not None  # noqa: S101 - a set has at least one row
        return values[:, 0] if values.shape[1] == 1 else values

    def label_blocks(
        self, name: str, chosen: np.ndarray | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield rows (of ``chosen``, all by default) and their labels, as far as there are any."""
        for system, rows in self._by_system(chosen).items():
            if self._arrays(system, name):
                array = self._stacked(system, name)
                yield rows, array.reshape(len(array), -1)[self.rows.frames[rows]]

    def structures(self, chosen: np.ndarray | None = None) -> Iterator[Structure]:
        """Yield atomic numbers, positions and cell (or None) of the rows ``chosen``, in order."""
        cache: dict[str, Structure] = {}
        for row in range(len(self)) if chosen is None else chosen.tolist():
            system, frame = self.rows.systems[row], self.rows.frames[row]
            if system not in cache:
                cache[system] = self._open_system(system)
            numbers, coords, boxes = cache[system]
            one = numbers[frame] if numbers.ndim == 2 else numbers
            box = None if boxes is None else np.array(boxes[frame]).reshape(3, 3)
            yield one[one > 0], np.array(coords[frame]).reshape(-1, 3)[one > 0], box

    def _open_system(self, system: str) -> Structure:
        """Return the arrays of all frames of a system."""
        folder = self.path / system
        names = (folder / "type_map.raw").read_text().split()
        z = np.array([atomic_number(name) for name in names])
        mixed = self._arrays(system, "real_atom_types")
        if mixed:
            types = self._stacked(system, "real_atom_types")
            numbers = np.where(types < 0, 0, z[types])  # -1 is padding
        else:
            numbers = z[np.loadtxt(folder / "type.raw", dtype=int, ndmin=1)]
        boxes = None if (folder / "nopbc").is_file() else self._stacked(system, "box")
        return numbers, self._stacked(system, "coord"), boxes

    def write_part(self, chosen: np.ndarray, out: Path) -> None:
        """Write the rows ``chosen`` (ascending) as a data set of the same kind."""
        places: dict[int, tuple[str, int]] = {}
        for system, rows in self._by_system(chosen).items():
            folder = out / system
            (folder / "set.000").mkdir(parents=True)
            frames = self.rows.frames[rows]
            labels = {path.stem for path in (self.path / system).glob("set.*/*.npy")}
            for label in sorted(labels):
                np.save(folder / "set.000" / f"{label}.npy", self._stacked(system, label)[frames])
            for path in (self.path / system).glob("*"):
                if path.is_file() and path.name != "type.raw":
                    (folder / path.name).write_bytes(path.read_bytes())
            (folder / "type.raw").write_bytes((self.path / system / "type.raw").read_bytes())
            places.update({int(row): (system, i) for i, row in enumerate(rows)})
        self._finish_part(chosen, out, places)


class LmdbSet(DataSet):
    """deepmd-kit LMDB."""

    kind = "lmdb"

    def __init__(self, path: Path) -> None:
        with _reading(path) as transaction:
            raw = transaction.get(b"__metadata__")
        if raw is None:
            raise UserError(f"{path} is not a deepmd-kit LMDB (no __metadata__)")
        self._meta: dict[str, Any] = msgpack.unpackb(raw, raw=False)
        super().__init__(path)

    def _systems(self) -> dict[str, int]:
        return {"": int(self._meta["nframes"])}

    def _raw(self, transaction: lmdb.Transaction, row: int) -> bytes:
        key = format(int(self.rows.frames[row]), self._meta.get("frame_idx_fmt", "012d"))
        raw = transaction.get(key.encode())
        if raw is None:
            raise UserError(f"{self.path} has no record {key}; is the file damaged?")
        return bytes(raw)

    def _records(self, chosen: np.ndarray | None = None) -> Iterator[dict[str, Any]]:
        with _reading(self.path) as transaction:
            for row in range(len(self)) if chosen is None else chosen.tolist():
                yield msgpack.unpackb(self._raw(transaction, row), raw=False)

    def _label(self, name: str) -> np.ndarray:
        key = DISK_NAMES.get(name, name)
        values = []
        for row, record in enumerate(self._records()):
            if key not in record:
                raise UserError(
                    f"no label {name!r} in row {row} of {self.path}; there are {', '.join(record)}"
                )
            values.append(_decode(record[key]).reshape(-1))
        stacked = np.array(values, dtype=np.float64)
        return stacked[:, 0] if stacked.shape[1] == 1 else stacked

    def label_blocks(
        self, name: str, chosen: np.ndarray | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield rows (of ``chosen``, all by default) and their labels, as far as there are any."""
        key = DISK_NAMES.get(name, name)
        rows = np.arange(len(self)) if chosen is None else chosen
        for row, record in zip(rows.tolist(), self._records(rows), strict=True):
            if key in record:
                yield np.array([row]), _decode(record[key]).reshape(1, -1)

    def structures(self, chosen: np.ndarray | None = None) -> Iterator[Structure]:
        """Yield atomic numbers, positions and cell (or None) of the rows ``chosen``, in order."""
        z = np.array([atomic_number(name) for name in self._meta["type_map"]])
        for record in self._records(chosen):
            box = _decode(record["cells"]).reshape(3, 3) if "cells" in record else None
            yield (
                z[_decode(record["atom_types"])],
                _decode(record["coords"]).reshape(-1, 3),
                None if box is None or not box.any() else box,
            )

    def write_part(self, chosen: np.ndarray, out: Path) -> None:
        """Write the rows ``chosen`` (ascending) as a data set of the same kind."""
        nlocs = np.array(self._meta["frame_nlocs"], dtype=np.int32)[self.rows.frames[chosen]]
        env = open_new(out)
        try:
            with _reading(self.path) as source, env.begin(write=True) as target:
                for i, row in enumerate(chosen.tolist()):
                    target.put(format(i, "012d").encode(), self._raw(source, row))
                target.put(b"__metadata__", metadata(self._meta["type_map"], nlocs))
            env.sync(True)
        finally:
            env.close()
        places = {row: ("", i) for i, row in enumerate(chosen.tolist())}
        self._finish_part(chosen, out, places)


@contextmanager
def _reading(path: Path) -> Iterator[lmdb.Transaction]:
    """Open an LMDB for a moment: a process may have it open only once."""
    try:
        env = lmdb.open(str(path), readonly=True, lock=False)
    except lmdb.Error as error:
        raise UserError(f"{path} cannot be opened as LMDB ({error})") from error
    try:
        check_complete(env, path / "data.mdb")
        with env.begin() as transaction:
            yield transaction
    finally:
        env.close()


def _decode(encoded: Any) -> np.ndarray:
    if not isinstance(encoded, dict):
        return np.asarray(encoded)
    shape = encoded.get("shape", (-1,))
    return np.frombuffer(encoded["data"], dtype=np.dtype(encoded["type"])).reshape(shape)


def open_dataset(path: Path) -> DataSet:
    """Open a converted set, or any deepmd/npy folder or deepmd LMDB."""
    if not path.is_dir():
        raise UserError(f"{path} is not a folder; convert the data first (dp-mft convert)")
    return LmdbSet(path) if (path / "data.mdb").is_file() else NpySet(path)


def folder_checksum(folder: Path) -> str:
    """SHA-256 over the data of a set, independent of where it lies.

    An LMDB's file depends on its history, so there the records are hashed; in an npy set
    the names and contents of the ``.npy`` and ``.raw`` files.
    """
    digest = hashlib.sha256()
    if (folder / "data.mdb").is_file():
        with _reading(folder) as transaction:
            for key, value in transaction.cursor():
                digest.update(key)
                digest.update(value)
        return digest.hexdigest()
    for path in sorted(folder.rglob("*")):
        if path.suffix in {".npy", ".raw"} or path.name == "nopbc":
            digest.update(path.relative_to(folder).as_posix().encode())
            digest.update(file_checksum(path).encode())
    return digest.hexdigest()
