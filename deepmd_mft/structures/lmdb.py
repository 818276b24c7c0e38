"""deepmd-kit's LMDB: one record for each frame."""

from __future__ import annotations

import hashlib
import re
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import lmdb
import msgpack
import numpy as np

from deepmd_mft.bridge.reading import decode_record, opened_lmdb
from deepmd_mft.data.writers.lmdb import metadata, open_new
from deepmd_mft.errors import UserError
from deepmd_mft.files.lmdb import check_complete
from deepmd_mft.structures.rows import Rows
from deepmd_mft.structures.store import Store, numbers_by_type, read_record
from deepmd_mft.structures.structure import Structure, checked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deepmd_mft.structures.store import Block

__all__ = ["LmdbStore"]

#: In a record, but no labels.
STRUCTURE_KEYS = {"coord", "box", "atype", "atom_numbs", "atom_names", "orig", "natoms"}


class LmdbStore(Store):
    """A folder with a ``data.mdb``.

    Parameters
    ----------
    path : Path
        The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record = read_record(path)
        meta = _read_metadata(path)
        self.nframes: int = meta["nframes"]
        self.key_format: str = meta.get("frame_idx_fmt", "012d")
        self.symbols: list[str] | None = meta.get("type_map")
        self._frame_nlocs: list[int] | None = meta.get("frame_nlocs")
        table = path / "rows.csv"
        if table.is_file():
            self.rows = Rows.read(table)
            if sorted(self.rows.frames.tolist()) != list(range(self.nframes)):
                raise UserError(
                    f"{table} lists {len(self.rows):,} rows that are not the {self.nframes:,} "
                    "frames of data.mdb; convert the data again"
                )
        else:
            self.rows = Rows.count(path.resolve().name, {".": self.nframes})

    @property
    def knows_elements(self) -> bool:
        """Whether the metadata have a type map."""
        return self.symbols is not None

    def _raw(self, transaction: lmdb.Transaction, row: int) -> bytes:
        key = format(int(self.rows.frames[row]), self.key_format)
        raw = transaction.get(key.encode())
        if raw is None:
            raise UserError(f"{self.path} has no record {key}; is the file damaged?")
        return bytes(raw)

    def _where(self, row: int) -> str:
        return f"{self.path}, record {format(int(self.rows.frames[row]), self.key_format)}"

    def _records(self, chosen: np.ndarray) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield place, for messages, and content of records."""
        with _reading(self.path) as transaction:
            for row in chosen.tolist():
                raw, where = self._raw(transaction, row), self._where(row)
                try:
                    record = decode_record(raw)
                except Exception as error:  # noqa: BLE001  (the file can hold anything)
                    raise UserError(
                        f"{where} cannot be decoded ({type(error).__name__}: {str(error)[:200]}); "
                        "write the data set again"
                    ) from None
                yield where, record

    def blocks(self, name: str, chosen: np.ndarray) -> Iterator[Block]:
        """Yield a label of the rows ``chosen``; rows of one width are one block."""
        found: dict[int, tuple[list[int], list[np.ndarray]]] = {}
        for position, (where, record) in enumerate(self._records(chosen)):
            values = _label(record, name, where)
            if values is not None:
                positions, arrays = found.setdefault(len(values), ([], []))
                positions.append(position)
                arrays.append(values)
        for positions, arrays in found.values():
            yield np.array(positions), np.stack(arrays)

    def label_names(self, row: int) -> list[str]:
        """Return the labels in the record of a row."""
        _, record = next(self._records(np.array([row])))
        return sorted(k for k in record if k not in STRUCTURE_KEYS and not k.startswith("find_"))

    def may_have(self, name: str) -> bool:
        """Whether the first record has a label."""
        return bool(self.nframes) and name in self.label_names(0)

    def structures(
        self, chosen: np.ndarray, type_map: list[str] | None = None
    ) -> Iterator[Structure]:
        """Yield the structures of the rows ``chosen``, in order."""
        symbols = type_map if self.symbols is None else self.symbols
        if symbols is None:
            raise UserError(f"{self.path} has no type_map in its __metadata__; write it again")
        for where, record in self._records(chosen):
            types = _numbers(record, "atype", where, 1)
            if (types != np.round(types)).any():
                raise UserError(f"{where}: atom_types holds {types.dtype}, not numbers of types")
            types = types.astype(np.int64)
            position = _numbers(record, "coord", where, 3).reshape(-1, 3)
            if len(types) != len(position):
                raise UserError(f"{where} has {len(types)} atom types and {len(position)} coords")
            real = types != -1  # virtual atoms
            cell = None
            if "box" in record:
                cell = _numbers(record, "box", where, 9)
                if cell.size != 9:
                    raise UserError(f"{where}: cells has {cell.size} numbers, not 9")
                cell = cell.reshape(3, 3) if cell.any() else None
            numbers = numbers_by_type(types[real], symbols, where)
            yield checked(numbers, position[real], cell, where)

    @cached_property
    def _nlocs(self) -> np.ndarray:
        """Atoms of every frame, as deepmd-kit groups them."""
        if self._frame_nlocs is not None:
            return np.array(self._frame_nlocs, dtype=np.int32)
        every = np.argsort(self.rows.frames)
        sizes = [_numbers(record, "atype", w, 1).size for w, record in self._records(every)]
        return np.array(sizes, dtype=np.int32)

    def checksum(self) -> str:
        """SHA-256 over the records: the file depends on its history."""
        digest = hashlib.sha256()
        with _reading(self.path) as transaction:
            for key, value in transaction.cursor():
                digest.update(key)
                digest.update(value)
        return digest.hexdigest()

    def write_part(self, chosen: np.ndarray, out: Path) -> None:
        """Write the rows ``chosen`` (ascending) as an LMDB."""
        nlocs = self._nlocs[self.rows.frames[chosen]]
        environment = open_new(out)
        try:
            with _reading(self.path) as source, environment.begin(write=True) as target:
                for i, row in enumerate(chosen.tolist()):
                    target.put(format(i, "012d").encode(), self._raw(source, row))
                target.put(b"__metadata__", metadata(self.symbols, nlocs))
            environment.sync(True)
        finally:
            environment.close()
        places = {row: ("", i) for i, row in enumerate(chosen.tolist())}
        self._finish_part(chosen, out, places)


@contextmanager
def _reading(path: Path) -> Iterator[lmdb.Transaction]:
    try:
        with opened_lmdb(str(path)) as environment:
            check_complete(environment, path / "data.mdb")
            with environment.begin() as transaction:
                yield transaction
    except lmdb.Error as error:
        raise UserError(f"{path} cannot be read as LMDB ({error}); write it again") from None


def _read_metadata(path: Path) -> dict[str, Any]:
    """Read ``__metadata__`` and believe nothing in it."""
    with _reading(path) as transaction:
        raw = transaction.get(b"__metadata__")
        entries = transaction.stat()["entries"]
    if raw is None:
        raise UserError(f"{path} is not a deepmd-kit LMDB (no __metadata__)")
    try:
        meta = msgpack.unpackb(raw, raw=False)
        wrong = _wrong_metadata(meta, entries)
    except Exception as error:  # noqa: BLE001  (the file can hold anything)
        wrong = f"{type(error).__name__}: {str(error)[:200]}"
    if wrong:
        raise UserError(f"{path}: __metadata__ is damaged ({wrong}); write the data set again")
    return dict(meta)


def _wrong_metadata(meta: dict[str, Any], entries: int) -> str:
    nframes, symbols = meta["nframes"], meta.get("type_map")
    if not isinstance(nframes, int) or not 0 <= nframes < entries:
        return f"nframes is {nframes!r}, there are {entries - 1} records"
    if not re.fullmatch(r"0?[0-9]{0,2}d", str(meta.get("frame_idx_fmt", "012d"))):
        return f"frame_idx_fmt is {meta['frame_idx_fmt']!r}"
    if symbols is not None and not all(isinstance(name, str) for name in symbols):
        return "type_map is no list of names"
    nlocs = meta.get("frame_nlocs")
    if nlocs is not None and (len(nlocs) != nframes or not all(type(n) is int for n in nlocs)):
        return f"frame_nlocs does not have one number for each of {nframes} frames"
    return ""


def _numbers(record: dict[str, Any], key: str, where: str, multiple: int) -> np.ndarray:
    """Return an array of a record, flat; its size must be a multiple of a number."""
    if key not in record:
        raise UserError(f"{where} has no {key}; it has {', '.join(sorted(map(str, record)))}")
    array = np.asarray(record[key]) if _is_numeric(record[key]) else None
    if array is None or array.size % multiple:
        raise UserError(f"{where}: {key} is no array of numbers of a fitting shape")
    return array.reshape(-1).astype(np.float64)


def _is_numeric(value: object) -> bool:
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "biuf"
    return isinstance(value, (bool, int, float, np.number))


def _label(record: dict[str, Any], name: str, where: str) -> np.ndarray | None:
    """Return a label of a record, flat; None if it is missing or marked as such."""
    if name not in record or not _is_found(record.get(f"find_{name}", 1.0)):
        return None
    if not _is_numeric(record[name]):
        raise UserError(f"{where}: {name} is not a number or an array of numbers")
    return np.asarray(record[name], dtype=np.float64).reshape(-1)


def _is_found(mark: object) -> bool:
    return not _is_numeric(mark) or bool(np.any(np.asarray(mark)))
