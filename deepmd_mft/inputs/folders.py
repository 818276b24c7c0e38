"""What data folders hold: elements, labels, numbers of frames; for filling a template."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from deepmd.dpmodel.utils.lmdb_data import is_lmdb
from deepmd.utils.data_system import process_systems

from deepmd_mft.bridge.reading import lmdb_frames, lmdb_type_map
from deepmd_mft.errors import UserError
from deepmd_mft.inputs.lmdb import check_whole
from deepmd_mft.inputs.systems import open_system
from deepmd_mft.names import RESERVED_NAMES
from deepmd_mft.structures.arrays import open_array

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

#: Arrays of a system that no head learns.
NO_LABELS = {
    *(*RESERVED_NAMES, "atype", "natoms", "numb_copy", "real_atom_types"),
    *("atom_numbs", "atom_names", "orig"),
}
#: How deepmd-kit's arrays of atoms begin.
ATOMIC = ("atom_", "atomic_")


@dataclass
class Contents:
    """What is in data folders.

    Attributes
    ----------
    frames : int
    elements : list of str
        Names that ``type_map.raw`` or the LMDB list.
    labels : dict of str to int
        Labels of properties that every system has, and their columns.
    largest : dict of str to float
        Their largest values: of classes, the number of the last.
    reserved : set of str
        Other arrays that every system has: energy, force, virial, ...
    """

    frames: int = 0
    elements: list[str] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    largest: dict[str, float] = field(default_factory=dict)
    reserved: set[str] = field(default_factory=set)


def look_into(folders: Iterable[Path]) -> Contents:
    """Look into folders of deepmd systems, systems and LMDBs.

    Raises
    ------
    UserError
        If there are no systems at a path, or they cannot be read.
    """
    found = Contents()
    tables: list[dict[str, int]] = []  # columns of the labels of each set; 0 for reserved names
    elements: set[str] = set()
    for folder in folders:
        if is_lmdb(str(folder)) and folder.is_dir():
            tables.append(_look_into_lmdb(folder, found, elements))
            continue
        systems = process_systems(str(folder)) if folder.is_dir() else []
        if not systems:
            raise UserError(
                f"{folder} holds no deepmd-kit systems (no type.raw below it); convert the data "
                "first (dp-mft convert)"
            )
        for system in systems:
            _look_into_system(str(system), found, elements, tables)
    common = set.intersection(*map(set, tables)) if tables else set()
    found.labels = {name: tables[0][name] for name in sorted(common) if name not in NO_LABELS}
    found.reserved = common & NO_LABELS
    found.elements = sorted(elements)
    return found


def _look_into_system(
    system: str, found: Contents, elements: set[str], tables: list[dict[str, int]]
) -> None:
    opened = open_system(system)
    elements.update(opened.symbols or [])
    for number in range(len(opened.sets)):
        nframes = opened.nframes(number)
        found.frames += nframes
        table = {}
        for label in opened.labels(number):
            if label in NO_LABELS:
                table[label] = 0
                continue
            if label.startswith(ATOMIC):
                continue
            array = open_array(opened.path(number, label))
            table[label] = array.size // max(nframes, 1)
            _see(label, array, found)
        tables.append(table)


def _look_into_lmdb(folder: Path, found: Contents, elements: set[str]) -> dict[str, int]:
    check_whole(str(folder))
    elements.update(lmdb_type_map(str(folder)))
    table: dict[str, int] = {}
    for number, record in enumerate(lmdb_frames(str(folder))):
        labels = {
            name: np.asarray(value)
            for name, value in record.items()
            if name not in NO_LABELS and not name.startswith(("find_", *ATOMIC))
        }
        numbers = {n: v for n, v in labels.items() if v.dtype.kind in "fiub"}
        sizes = {n: v.size for n, v in numbers.items()} | dict.fromkeys(
            NO_LABELS & record.keys(), 0
        )
        table = {n: size for n, size in sizes.items() if number == 0 or n in table}
        for name, value in numbers.items():
            _see(name, value, found)
        found.frames += 1
    return table


def _see(label: str, array: np.ndarray, found: Contents) -> None:
    values = np.asarray(array, dtype=np.float64)
    largest = float(np.max(values[np.isfinite(values)], initial=-np.inf))
    found.largest[label] = max(found.largest.get(label, -np.inf), largest)
