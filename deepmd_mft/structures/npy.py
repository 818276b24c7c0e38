"""deepmd/npy, mixed or not: systems below a folder or in HDF5, as ``dp`` finds and reads them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from deepmd_mft.errors import UserError
from deepmd_mft.files.checksums import file_checksum
from deepmd_mft.files.npy import save_array
from deepmd_mft.names import RESERVED_NAMES
from deepmd_mft.structures.arrays import (
    as_frames,
    open_array,
    place_of,
    read_types,
    read_words,
    shape_of,
)
from deepmd_mft.structures.rows import Rows
from deepmd_mft.structures.store import Store, numbers_by_type, read_record
from deepmd_mft.structures.structure import Structure, checked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deepmd_mft.structures.arrays import Place
    from deepmd_mft.structures.store import Block

__all__ = ["NpyStore", "System", "list_systems"]

#: Sets kept open at a time; each holds three file descriptors, of which there are often 1,024.
OPEN_SETS = 200
#: What belongs to a system beside its sets.
TEXTS = ("type.raw", "type_map.raw", "nopbc")
#: What belongs to a structure, not to its labels.
GEOMETRY = ("coord", "box", "real_atom_types")


def list_systems(folder: Path) -> list[str]:
    """List the systems below a folder, or group of HDF5, as ``dp`` does: linked ones too.

    Returns
    -------
    list of str
        Relative to the folder (``.`` if it is one itself), sorted.
    """
    from deepmd.utils.data_system import process_systems  # noqa: PLC0415

    root = _root(folder)
    names = {Path(path).relative_to(root).as_posix() for path in process_systems(str(folder))}
    return sorted(names)


def _root(path: Path) -> Path:
    """Return the folder or group; the first group of an HDF5 file."""
    return Path(f"{path}#") if path.is_file() else path


@dataclass(frozen=True)
class System:
    """A system on disk.

    Parameters
    ----------
    folder : Path or DPPath
        A folder, or a group of an HDF5 file.
    sets : list of Path or DPPath
        Its ``set.*`` folders in deepmd-kit's order.
    starts : np.ndarray of int
        First frame of each set, and the number of all; shape ``nsets + 1``.
    types : np.ndarray of int
        Types of ``type.raw``, shape ``nloc``.
    symbols : list of str or None
        ``type_map.raw``.
    periodic, mixed : bool
        Without a file ``nopbc``; with ``real_atom_types.npy``.
    """

    folder: Place
    sets: list[Place]
    starts: np.ndarray
    types: np.ndarray
    symbols: list[str] | None
    periodic: bool
    mixed: bool

    @classmethod
    def open(cls, folder: Place) -> System:
        """Read what is not large.

        Raises
        ------
        UserError
            If the folder is no system, or its sets do not fit together.
        """
        sets: list[Place] = sorted(folder.glob("set.*"), key=str)
        if not sets:
            raise UserError(f"{folder} has a type.raw, but no set.* with data")
        _check_files(sets)
        types = read_types(folder / "type.raw")
        type_map = folder / "type_map.raw"
        mixed = {(one / "real_atom_types.npy").is_file() for one in sets}
        if len(mixed) > 1:
            raise UserError(f"{folder}: real_atom_types.npy must be in all sets, or in none")
        counts = [_count_frames(one, len(types)) for one in sets]
        return cls(
            folder,
            sets,
            np.cumsum([0, *counts]),
            types,
            read_words(type_map) if type_map.is_file() else None,
            not (folder / "nopbc").is_file(),
            mixed.pop(),
        )

    def arrays(self, number: int) -> list[str]:
        """Names of all arrays of a set."""
        return sorted(path.name.removesuffix(".npy") for path in self.sets[number].glob("*.npy"))

    def labels(self, number: int) -> list[str]:
        """Names of the labels of a set."""
        return [name for name in self.arrays(number) if name not in GEOMETRY]

    def path(self, number: int, name: str) -> Place:
        """Return where an array of a set lies, if it is there."""
        return self.sets[number] / f"{name}.npy"

    def nframes(self, number: int) -> int:
        """Return the frames of a set."""
        return int(self.starts[number + 1] - self.starts[number])

    def frames(self, number: int, name: str) -> np.ndarray:
        """Open an array of a set, one row for each frame."""
        path = self.path(number, name)
        return as_frames(open_array(path), self.nframes(number), path)


def _check_files(sets: list[Place]) -> None:
    """Raise if an array is a folder, a pipe (which would be waited for) or a broken link."""
    for folder in sets:
        for path in folder.glob("*.npy"):
            if not path.is_file():
                raise UserError(
                    f"{path} is no file, but a folder, a pipe or a broken link; replace it by the "
                    "file, or remove it"
                )


def _count_frames(folder: Place, natoms: int) -> int:
    """Return the frames of a set as deepmd-kit counts them: by the header of ``coord.npy``."""
    path = folder / "coord.npy"
    shape = shape_of(path)
    nframes = shape[0] if len(shape) > 1 else 1
    if np.prod(shape, dtype=np.int64) != nframes * natoms * 3:
        raise UserError(
            f"{path} has the shape {shape}; type.raw lists {natoms} atoms, so {3 * natoms} "
            "numbers are needed for each frame"
        )
    return nframes


#: System, number of the set, positions in the rows that are asked for, frames in the set.
Part: TypeAlias = tuple[System, int, np.ndarray, np.ndarray]


class NpyStore(Store):
    """Systems below a folder.

    Parameters
    ----------
    path : Path
        The folder.
    within : list of str, optional
        Only the systems at or below these places of it; all by default.
    """

    def __init__(self, path: Path, within: list[str] | None = None) -> None:
        self.path = path
        self.record = read_record(path)
        names = [name for name in list_systems(path) if _lies_within(name, within)]
        if not names:
            raise UserError(f"{path} holds no deepmd-kit systems (no type.raw below it)")
        self.systems = {name: System.open(place_of(str(_root(path) / name))) for name in names}
        table = path / "rows.csv"
        if table.is_file():
            self.rows = _own_rows(Rows.read(table), table, self.systems, within)
        else:
            counts = {name: int(system.starts[-1]) for name, system in self.systems.items()}
            self.rows = Rows.count(path.resolve().name, counts)

    @property
    def knows_elements(self) -> bool:
        """Whether every system has a ``type_map.raw``."""
        return all(system.symbols is not None for system in self.systems.values())

    @cached_property
    def _places(self) -> tuple[np.ndarray, np.ndarray, list[tuple[System, int]]]:
        """Set and frame in it of every row, and the sets."""
        sets = [(s, number) for s in self.systems.values() for number in range(len(s.sets))]
        ends = np.cumsum([len(s.sets) for s in self.systems.values()])
        first = {
            name: end - len(self.systems[name].sets)
            for name, end in zip(self.systems, ends, strict=True)
        }
        which = np.empty(len(self.rows), dtype=np.int64)
        local = np.empty(len(self.rows), dtype=np.int64)
        by_system: dict[str, list[int]] = {}
        for row, name in enumerate(self.rows.systems):
            by_system.setdefault(name, []).append(row)
        for name, rows in by_system.items():
            starts, frames = self.systems[name].starts, self.rows.frames[rows]
            number = np.searchsorted(starts, frames, side="right") - 1
            which[rows] = first[name] + number
            local[rows] = frames - starts[number]
        return which, local, sets

    def _by_set(self, chosen: np.ndarray) -> Iterator[Part]:
        which, local, sets = self._places
        order = np.argsort(which[chosen], kind="stable")
        ends = np.flatnonzero(np.diff(which[chosen[order]])) + 1
        for positions in np.split(order, ends):
            if len(positions):
                rows = chosen[positions]
                yield *sets[which[rows[0]]], positions, local[rows]

    def blocks(self, name: str, chosen: np.ndarray) -> Iterator[Block]:
        """Yield a label of the rows ``chosen``, set by set, where the set has it."""
        for system, number, positions, frames in self._by_set(chosen):
            if system.path(number, name).is_file():
                yield positions, system.frames(number, name)[frames]

    def label_names(self, row: int) -> list[str]:
        """Return the labels of the set that a row lies in."""
        which, _, sets = self._places
        system, number = sets[which[row]]
        return system.labels(number)

    def structures(
        self, chosen: np.ndarray, type_map: list[str] | None = None
    ) -> Iterator[Structure]:
        """Yield the structures of the rows ``chosen``, in order."""
        which, local, sets = self._places

        @lru_cache(maxsize=OPEN_SETS)
        def opened(one: int) -> tuple[Any, ...]:
            system, number = sets[one]
            symbols = type_map if system.symbols is None else system.symbols
            if symbols is None:
                raise UserError(
                    f"{system.folder} has no type_map.raw, so its types have no names; write the "
                    "element of each type into it, one per line"
                )
            types = system.frames(number, "real_atom_types") if system.mixed else None
            box = system.frames(number, "box") if system.periodic else None
            return system, number, symbols, system.frames(number, "coord"), types, box

        for row in chosen.tolist():
            frame = int(local[row])
            yield _structure(frame, *opened(int(which[row])))

    def checksum(self) -> str:
        """SHA-256 over names and contents of the systems' files."""
        digest = hashlib.sha256()
        if not self.path.is_dir():
            file, _, group = str(self.path).partition("#")
            digest.update(f"{group}\n{file_checksum(Path(file))}".encode())
            return digest.hexdigest()
        files = [
            path.relative_to(self.path)
            for system in self.systems.values()
            for place in (system.folder, *system.sets)
            for path in place.iterdir()
            if path.suffix in {".npy", ".raw"} or path.name == "nopbc"
        ]
        for path in sorted(files):
            digest.update(path.as_posix().encode())
            digest.update(file_checksum(self.path / path).encode())
        return digest.hexdigest()

    def write_part(self, chosen: np.ndarray, out: Path) -> None:
        """Write the rows ``chosen`` (ascending) as systems of the same names.

        The frames of a system whose sets have the same labels for deepmd-kit go to one set; a
        property that some of them lack is NaN there. Labels of deepmd-kit's own (``force``)
        stay absent where they are absent: it would train on the NaN.
        """
        if not self.path.is_dir():
            super().write_part(chosen, out)
        places: dict[int, tuple[str, int]] = {}
        names = np.array(self.rows.systems, dtype=object)[chosen]
        for name in dict.fromkeys(names.tolist()):
            rows = chosen[names == name]
            _check_links(self.systems[name])
            (out / name).mkdir(parents=True, exist_ok=True)
            order = self._write_sets(rows, out / name)
            _copy_texts(self.systems[name].folder, out / name)
            places.update({int(row): (name, frame) for frame, row in enumerate(rows[order])})
        self._finish_part(chosen, out, places)

    def _write_sets(self, rows: np.ndarray, folder: Path) -> np.ndarray:
        """Write the sets of one system; return the positions in ``rows`` in their order."""
        every = list(self._by_set(rows))
        alike: dict[object, list[Part]] = {}
        for kind, part in zip(_kinds(every), every, strict=True):
            alike.setdefault(kind, []).append(part)
        done: list[np.ndarray] = []
        for number, parts in enumerate(alike.values()):
            positions = np.concatenate([part[2] for part in parts])
            target = folder / f"set.{number:03d}"
            target.mkdir()
            files = {name for system, n, *_ in parts for name in system.arrays(n)}
            for name in sorted(files):
                values = _stack([_rows_of(name, *part) for part in parts])
                save_array(target / f"{name}.npy", values[np.argsort(positions)])
            done.append(np.sort(positions))
        return np.concatenate(done)


def _lies_within(name: str, within: list[str] | None) -> bool:
    if within is None:
        return True
    return any(one in {".", name} or name.startswith(f"{one}/") for one in within)


def _own_rows(
    rows: Rows, table: Path, systems: dict[str, System], within: list[str] | None
) -> Rows:
    """Return the rows of the systems; they must be one for each frame."""
    if within is not None:
        own = np.array([_lies_within(name, within) for name in rows.systems], dtype=bool)
        rows = rows.take(np.flatnonzero(own))
    total = sum(int(system.starts[-1]) for system in systems.values())
    for name, frame in zip(rows.systems, rows.frames.tolist(), strict=True):
        if name not in systems or frame >= systems[name].starts[-1]:
            raise UserError(
                f"{table} names frame {frame} of system {name!r}, which is not there; convert the "
                "data again, or remove the table if you changed the systems by hand"
            )
    if len(rows) != total:
        raise UserError(
            f"{table} lists {len(rows):,} rows, but the systems hold {total:,} frames; convert the "
            "data again, or remove the table if you changed the systems by hand"
        )
    return rows


def _structure(
    frame: int,
    system: System,
    number: int,
    symbols: list[str],
    coord: np.ndarray,
    types: np.ndarray | None,
    box: np.ndarray | None,
) -> Structure:
    where = f"{system.sets[number]}, frame {frame}"
    position = np.array(coord[frame], dtype=np.float64).reshape(-1, 3)
    own = system.types
    if types is not None:
        own = np.array(types[frame])
        if own.dtype.kind == "f":  # deepmd-kit casts too
            own = np.where(np.isfinite(own), own, len(symbols)).astype(np.int64)
        if own.shape != (len(position),):
            raise UserError(
                f"{where}: real_atom_types.npy has {own.size} atoms, coord.npy {len(position)}"
            )
        real = own != -1  # padding
        own, position = own[real], position[real]
    cell = None
    if box is not None:
        if box.shape[1] != 9:
            raise UserError(f"{where}: box.npy has {box.shape[1]} numbers for each frame, not 9")
        cell = np.array(box[frame], dtype=np.float64).reshape(3, 3)
    return checked(numbers_by_type(own, symbols, where), position, cell, where)


def _kinds(parts: list[Part]) -> list[tuple[tuple[str, int], ...]]:
    """Say of each set what the sets that are written as one must share.

    That is which arrays of deepmd-kit's own it has, and the widths of those that vary.
    """
    widths = [
        {name: system.frames(number, name).shape[1] for name in system.arrays(number)}
        for system, number, *_ in parts
    ]
    every = {name for one in widths for name in one}
    divides = {
        name
        for name in every
        if _is_native(name) or len({one[name] for one in widths if name in one}) > 1
    }
    return [tuple(sorted((n, w) for n, w in one.items() if n in divides)) for one in widths]


def _is_native(name: str) -> bool:
    """Whether deepmd-kit reads an array of this name by itself."""
    return name in {*RESERVED_NAMES, *GEOMETRY, "numb_copy"} or name.startswith("atom")


def _rows_of(
    name: str, system: System, number: int, _positions: np.ndarray, frames: np.ndarray
) -> np.ndarray | int:
    """Return the values of an array, or the number of rows that have none."""
    if not system.path(number, name).is_file():
        return len(frames)
    return system.frames(number, name)[frames]


def _stack(parts: list[np.ndarray | int]) -> np.ndarray:
    known = [part for part in parts if not isinstance(part, int)]
    filled = [
        np.full((part, known[0].shape[1]), np.nan) if isinstance(part, int) else part
        for part in parts
    ]
    return np.concatenate(filled)


def _check_links(system: System) -> None:
    """Raise if a file of a system lies elsewhere: what it holds must not get into a split."""
    home = system.folder.resolve()  # the system itself may be a linked folder
    arrays = [path for one in system.sets for path in sorted(one.glob("*.npy"))]
    for path in (*(system.folder / name for name in TEXTS), *arrays):
        if path.is_symlink() and not (path.exists() and home in path.resolve().parents):
            raise UserError(f"{path} is a link to a file outside its system; replace it by a copy")


def _copy_texts(source: Path, target: Path) -> None:
    """Copy what belongs to a system, and nothing else that may lie or be linked in it."""
    for name in TEXTS:
        if (source / name).is_file():
            (target / name).write_bytes((source / name).read_bytes())
