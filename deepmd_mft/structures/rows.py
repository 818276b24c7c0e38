"""The table of a set: one row for each structure, as ``rows.csv`` has it."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from deepmd_mft.errors import UserError
from deepmd_mft.files.names import path_below

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

__all__ = ["ROW_FIELDS", "Rows"]

#: Columns of ``rows.csv``: the row here, its name, its molecule, what it belongs together
#: with, its row in the source (counting what was skipped), and where it is stored.
ROW_FIELDS = ("row", "id", "smiles", "group", "source_row", "system", "frame")


@dataclass
class Rows:
    """The table of a set, one entry for each row; names are text, ``001`` stays ``001``.

    Parameters
    ----------
    ids, smiles, groups, systems : list of str
        Name, molecule, what stays together, folder of the system below the set.
    source_rows, frames : np.ndarray of int
        Row in the source; frame in the system.
    counted : bool
        True if there is no ``rows.csv``: the names are those of system and frame.
    """

    ids: list[str]
    smiles: list[str]
    groups: list[str]
    systems: list[str]
    source_rows: np.ndarray
    frames: np.ndarray
    counted: bool = False

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def read(cls, path: Path) -> Rows:
        """Read ``rows.csv``.

        Raises
        ------
        UserError
            If it is damaged, or names a system outside its folder.
        """
        try:
            state = path.stat()
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror})") from None
        return _read(path, state.st_mtime_ns, state.st_size)

    @classmethod
    def count(cls, name: str, systems: dict[str, int]) -> Rows:
        """Count the frames of systems that have no ``rows.csv``.

        Parameters
        ----------
        name : str
            What a system is called that is the set's own folder.
        systems : dict of str to int
            Frames of every system.
        """
        folders = [system for system, n in systems.items() for _ in range(n)]
        frames = np.concatenate([np.arange(n) for n in systems.values()] or [np.arange(0)])
        ids = [
            f"{name if system in {'', '.'} else system}:{frame}"
            for system, frame in zip(folders, frames.tolist(), strict=True)
        ]
        empty = [""] * len(ids)
        return cls(ids, empty, empty, folders, np.arange(len(ids)), frames, counted=True)

    def take(self, chosen: np.ndarray) -> Rows:
        """Return some of the rows."""
        rows = chosen.tolist()
        return Rows(
            [self.ids[row] for row in rows],
            [self.smiles[row] for row in rows],
            [self.groups[row] for row in rows],
            [self.systems[row] for row in rows],
            self.source_rows[chosen],
            self.frames[chosen],
            self.counted,
        )

    @classmethod
    def join(cls, parts: Sequence[Rows]) -> Rows:
        """Return the rows of several tables, one after the other."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            [one for part in parts for one in part.ids],
            [one for part in parts for one in part.smiles],
            [one for part in parts for one in part.groups],
            [one for part in parts for one in part.systems],
            np.concatenate([part.source_rows for part in parts]),
            np.concatenate([part.frames for part in parts]),
            all(part.counted for part in parts),
        )

    def checksum(self) -> str:
        """SHA-256 over the names of all rows in order: which rows row numbers mean."""
        names: Iterable[str] = self.ids
        if self.counted:  # not by the name of the folder, which may be another tomorrow
            names = (f"{s}:{f}" for s, f in zip(self.systems, self.frames.tolist(), strict=True))
        digest = hashlib.sha256()
        for name in names:
            digest.update(name.encode() + b"\0")
        return digest.hexdigest()

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


@lru_cache(maxsize=2)  # each system of a set asks for the table of the set
def _read(path: Path, _time: int, _size: int) -> Rows:
    columns: list[list[str]] = [[] for _ in ROW_FIELDS]
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
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
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a table ({error})") from None
    _, ids, smiles, groups, source_rows, systems, frames = columns
    for system in dict.fromkeys(systems):
        path_below(system, f"{path}, column system")
    rows = Rows(
        ids,
        smiles,
        groups,
        [system or "." for system in systems],
        _whole_numbers(source_rows, f"{path}, column source_row"),
        _whole_numbers(frames, f"{path}, column frame"),
    )
    _check_distinct(path, rows)
    return rows


def _whole_numbers(texts: list[str], where: str) -> np.ndarray:
    wrong = next((t for t in texts if not (t.isascii() and t.isdecimal() and len(t) < 19)), None)
    if wrong is not None:
        raise UserError(f"{where}: {wrong[:80]!r} is not a row number (row {texts.index(wrong)})")
    return np.array(texts, dtype=np.int64)


def _check_distinct(path: Path, rows: Rows) -> None:
    """Refuse a table that names a frame twice."""
    codes: dict[str, int] = {}
    systems = np.array(
        [codes.setdefault(name, len(codes)) for name in rows.systems], dtype=np.int64
    )
    order = np.lexsort((rows.frames, systems))
    same = (np.diff(systems[order]) == 0) & (np.diff(rows.frames[order]) == 0)
    if same.any():
        row = int(order[1:][same][0])
        raise UserError(
            f"{path} names frame {rows.frames[row]} of system {rows.systems[row]!r} twice (row "
            f"{row}); convert the data again"
        )
