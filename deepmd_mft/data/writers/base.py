"""What both writers share: staging, the type map, the table of rows."""

from __future__ import annotations

import csv
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from deepmd_mft.errors import UserError
from deepmd_mft.files.records import write_record
from deepmd_mft.files.staging import staged_folder
from deepmd_mft.files.versions import package_versions
from deepmd_mft.names import GROUP, RESERVED_NAMES
from deepmd_mft.structures.elements import ELEMENTS, atomic_number
from deepmd_mft.structures.rows import ROW_FIELDS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

    from deepmd_mft.data.frames import Frames

__all__ = ["Writer"]

#: Angstrom between virtual atoms beside a molecule.
_APART = 50.0
#: Where virtual atoms may be in a cell: the R3 sequence, which fills it evenly.
_CANDIDATES = np.arange(1, 257)[:, None] * [0.8191725134, 0.6710436067, 0.5497004779] % 1.0
_FORCE_FIELD = {"energy", "force", "virial"}
#: What else deepmd-kit's files may hold under a name, and no property: ``forces`` of an LMDB.
_FILE_NAMES = {
    *("energies", "forces", "virials", "coords", "cells", "natoms", "orig", "numb_copy", "atype"),
    *("real_atom_types", "atom_types", "atom_names", "atom_numbs"),
}


class Writer:
    """A data set in the making; use as a context manager.

    Nothing appears under ``out`` until the block ends without an error.

    Parameters
    ----------
    out : Path
        Folder to write.
    type_map : list of str, optional
        Order of the elements. By default they are numbered as they appear; deepmd-kit
        matches them by name.
    inputs : sequence of Path
        What is read; never replaced.
    overwrite : bool
        Replace an existing folder that a conversion wrote.
    """

    kind = ""
    #: Beginnings of names that mean something else in such files.
    prefixes: tuple[str, ...] = ("find_",)

    def __init__(
        self,
        out: Path,
        *,
        type_map: list[str] | None = None,
        inputs: Sequence[Path] = (),
        overwrite: bool = False,
    ) -> None:
        self.out = out
        self.rows = self.groups = 0
        self.type_map: list[str] = list(type_map or [])
        self._fixed = bool(type_map)
        self._types = np.full(len(ELEMENTS) + 1, -1, dtype=np.int32)
        for index, symbol in enumerate(self.type_map):
            self._types[atomic_number(symbol)] = index
        self._staged = staged_folder(out, "convert", inputs, overwrite=overwrite)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self.folder = self._stack.enter_context(self._staged)
        try:
            handle = (self.folder / "rows.csv").open("w", newline="", encoding="utf-8")
            self._stack.enter_context(handle)
            self._table = csv.writer(handle, lineterminator="\n")
            self._table.writerow(ROW_FIELDS)
            self._open()
        except BaseException as error:
            if not self._stack.__exit__(type(error), error, error.__traceback__):
                raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        self._close()
        return self._stack.__exit__(kind, error, trace)

    def add_group(self, parts: list[tuple[Frames, Sequence[int]]]) -> None:
        """Append structures that have one label together: to one system, of one atom count.

        Parameters
        ----------
        parts : list of (Frames, sequence of int)
            Configurations, and the row of each in the source.
        """
        number, self.groups = float(self.groups), self.groups + 1
        natoms = max(len(frames.numbers) for frames, _ in parts)
        for frames, rows in parts:
            self._check_names(frames)
            labels = {**frames.labels, GROUP: np.full((len(frames), 1), number)}
            self._add(replace(frames, labels=labels), rows, natoms)

    def add(self, frames: Frames, source_rows: Sequence[int]) -> None:
        """Append frames.

        Parameters
        ----------
        frames : Frames
            One or more configurations.
        source_rows : sequence of int
            Row of each in the source.
        """
        self._check_names(frames)
        self._add(frames, source_rows)

    def _check_names(self, frames: Frames) -> None:
        for name in frames.labels:
            taken = name in {*RESERVED_NAMES, *_FILE_NAMES} or name.startswith(self.prefixes)
            if taken and name not in _FORCE_FIELD:
                raise UserError(
                    f"a property cannot be called {name!r}: deepmd-kit uses that name itself; "
                    f"rename it, for example --property my_{name}={name}"
                )

    def _add(self, frames: Frames, source_rows: Sequence[int], natoms: int | None = None) -> None:
        types = self._types[frames.numbers]
        if (types < 0).any():
            types = self._new_types(frames.numbers)
        if natoms is not None:
            frames, types = _padded(frames, types, natoms)
        system, first = self._put(frames, types)
        group = frames.group or frames.smiles
        for offset, (name, source_row) in enumerate(zip(frames.ids, source_rows, strict=True)):
            place = (source_row, system, first + offset)
            try:
                self._table.writerow((self.rows, name, frames.smiles, group, *place))
            except UnicodeEncodeError:
                raise UserError(
                    f"structure {name!a} (or its group {group!a}) has a name that is not UTF-8; "
                    "rename the file, or mend the name in it"
                ) from None
            self.rows += 1

    def finish(self, record: dict[str, Any]) -> None:
        """Complete the files and write ``dataset.json``.

        Parameters
        ----------
        record : dict
            Where the data came from and what they are.
        """
        self._finish()
        record = {
            "format": "deepmd_mft data set, version 1",
            "kind": self.kind,
            "rows": self.rows,
            "type_map": self.type_map,
            **record,
            "versions": package_versions(),
        }
        write_record(self.folder, "convert", record)

    def _new_types(self, numbers: np.ndarray) -> np.ndarray:
        for z in np.unique(numbers[self._types[numbers] < 0]):
            symbol = ELEMENTS[z - 1]
            if self._fixed:
                raise UserError(
                    f"{symbol} is not in the type map {' '.join(self.type_map)}; "
                    "add it to --type-map or leave the option out"
                )
            self._types[z] = len(self.type_map)
            self.type_map.append(symbol)
        return np.asarray(self._types[numbers])

    def _open(self) -> None:
        """Make what the format needs before the first frame."""

    def _put(self, frames: Frames, types: np.ndarray) -> tuple[str, int]:
        """Store frames; return the system and the number of the first frame in it."""
        raise NotImplementedError

    def _finish(self) -> None:
        """Write what is only known at the end."""

    def _close(self) -> None:
        """Release what is open, after success and failure alike."""


def _padded(frames: Frames, types: np.ndarray, natoms: int) -> tuple[Frames, np.ndarray]:
    """Fill up to a number of atoms with virtual ones, of type -1.

    deepmd-kit's neighbour statistics stop where two atoms, virtual or not, are in one place.
    """
    more = natoms - len(types)
    if not more:
        return frames, types
    numbers = np.pad(frames.numbers, (0, more))
    cells = frames.cells if frames.cells is not None else [None] * len(frames)
    coords = np.stack(
        [
            np.vstack([one, _free_places(one, cell, more)])
            for one, cell in zip(frames.coords, cells, strict=True)
        ]
    )
    labels = {
        name: np.pad(value, ((0, 0), (0, more), (0, 0))) if name == "force" else value
        for name, value in frames.labels.items()
    }
    padded = replace(frames, numbers=numbers, coords=coords, labels=labels)
    return padded, np.pad(types, (0, more), constant_values=-1)


def _free_places(positions: np.ndarray, cell: np.ndarray | None, number: int) -> np.ndarray:
    """Return places (number x 3) away from atoms and from each other."""
    if cell is None:
        places = np.zeros((number, 3))
        places[:, 0] = positions[:, 0].max() + _APART * np.arange(1, number + 1)
        return places
    taken = positions @ np.linalg.inv(cell)
    for _ in range(number):
        away = _CANDIDATES[:, None] - taken
        distance = np.linalg.norm((away - np.round(away)) @ cell, axis=-1).min(axis=1)
        taken = np.vstack([taken, _CANDIDATES[distance.argmax()]])
    return np.asarray(taken[len(positions) :] @ cell)
