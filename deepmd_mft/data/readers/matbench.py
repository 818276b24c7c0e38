"""MatBench v0.1 (Dunn et al., npj Comput. Mater. 6, 138 (2020)): JSON of pymatgen structures."""

from __future__ import annotations

import gzip
import re
import zlib
from typing import IO, TYPE_CHECKING, Any

import ijson
import numpy as np

from deepmd_mft.data.frames import Frames, Source
from deepmd_mft.data.readers import PropertySpec
from deepmd_mft.data.readers.values import number
from deepmd_mft.errors import UserError
from deepmd_mft.structures.elements import ELEMENTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deepmd_mft.data.readers import ReadOptions

__all__ = ["read_matbench"]

#: Target column of each task: name here and unit.
TARGETS = {
    "n": ("n", "1"),
    "exfoliation_en": ("exfoliation_en", "meV/atom"),
    "last phdos peak": ("phdos_peak", "1/cm"),
    "log10(G_VRH)": ("log_gvrh", "log10(GPa)"),
    "log10(K_VRH)": ("log_kvrh", "log10(GPa)"),
    "gap pbe": ("gap", "eV"),
    "is_metal": ("is_metal", "class"),
    "e_form": ("e_form", ""),
}
#: ``e_form`` means two things.
E_FORM = {"matbench_perovskites": "eV/unit cell", "matbench_mp_e_form": "eV/atom"}

# pymatgen's deuterium and tritium are hydrogen to a potential.
_NUMBERS = {symbol: z for z, symbol in enumerate(ELEMENTS, start=1)} | {"D": 1, "T": 1}
# A structure of some thousand sites needs a megabyte; JSON can hold anything, and yajl scans a
# long text once per chunk.
_LARGEST_ROW = 2**24
_DEEPEST = 1000
_CHUNK = 2**14
_END = object()


def read_matbench(path: Path, options: ReadOptions) -> Source:
    """Read a structure task of MatBench; row *i* of the file becomes row *i* here.

    Names are MatBench's own, ``mb-dielectric-0001`` for the first of 4,764 rows.
    """
    columns, total = _read_head(path)
    if "structure" not in columns or len(columns) != 2:
        raise UserError(
            f"{path}: columns {columns}; expected 'structure' and one target. MatBench's "
            "composition tasks have no structures and cannot be converted"
        )
    column = next(name for name in columns if name != "structure")
    task = path.name.split(".")[0]
    name, unit = TARGETS.get(column, (re.sub(r"\W+", "_", column).strip("_"), ""))
    unit = unit or E_FORM.get(task, "")
    spec = PropertySpec(name, column, unit)
    if len(options.properties) > 1:
        raise UserError(f"{path}: there is one target, {column!r}; give one --property")
    if options.properties:
        asked = options.properties[0]
        if asked.key not in (name, column):
            raise UserError(f"{path}: the target is {column!r}, not {asked.key!r}")
        spec = asked.of_known_unit(column, unit)
    if not spec.unit:
        raise UserError(
            f"{path}: the unit of {column!r} is unknown; give --property {spec.name}={column}:UNIT"
        )
    prefix = "mb-" + task.removeprefix("matbench_").replace("_", "-")
    names = (f"{prefix}-{i + 1:0{len(str(total))}d}" for i in range(total))
    frames = _frames(path, columns, spec, names)
    return Source("matbench", [path], spec.units, frames, total)


class _Bounded:
    """A file for ijson that stops where one row would not end."""

    def __init__(self, handle: IO[bytes], path: Path) -> None:
        self._handle, self._path = handle, path
        self.since_row = self._depth = 0

    def read(self, size: int) -> bytes:
        """Read up to ``size`` bytes."""
        self.since_row += size
        if self.since_row > _LARGEST_ROW:
            raise UserError(
                f"{self._path}: one entry of more than {_LARGEST_ROW // 2**20} MB; is this a "
                "MatBench JSON file?"
            )
        data = self._handle.read(size)
        # ijson keeps the path to where it is, one text per level.
        self._depth += data.count(b"[") + data.count(b"{") - data.count(b"]") - data.count(b"}")
        if self._depth > _DEEPEST:
            raise UserError(f"{self._path}: lists in lists without end; is this a MatBench file?")
        return data


def _open(path: Path) -> Any:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


def _damaged(path: Path, error: Exception, rows: int = 0) -> UserError:
    ended = isinstance(error, (EOFError, zlib.error, ijson.IncompleteJSONError))
    advice = "an interrupted download leaves such a file: fetch it again"
    reason = " ".join(str(error).split())
    return UserError(
        f"{path} ends or is damaged after {rows:,} rows ({reason}); "
        f"{advice if ended else 'JSON has no NaN and no infinity, write null'}"
    )


def _read_head(path: Path) -> tuple[list[str], int]:
    """Read the columns and the number of rows, which stand before the rows."""
    columns: list[str] = []
    total = 0
    known: set[str] = set()
    try:
        with _open(path) as handle:
            source = _Bounded(handle, path)
            for place, _, value in ijson.parse(source, buf_size=_CHUNK):
                known.add(place)
                if place == "data":
                    break
                if place == "columns.item":
                    columns.append(str(value))
                if place == "index.item":
                    total += 1
                    source.since_row = 0
    except (EOFError, OSError, zlib.error, ijson.JSONError) as error:
        raise _damaged(path, error) from error
    for key in ("data", "columns", "index"):
        if key not in known:
            where = "" if key == "data" else ' before "data"'
            raise UserError(
                f'{path}: no "{key}"{where}; is this a MatBench JSON file? (ase JSON: --kind ase)'
            )
    return columns, total


def _rows(path: Path) -> Iterator[list[Any]]:
    """Decode ``data`` row by row, so that 2 GB of JSON never stand in memory."""
    done = 0
    with _open(path) as handle:
        source = _Bounded(handle, path)
        rows = ijson.items(source, "data.item", buf_size=_CHUNK, use_float=True)
        while True:
            try:
                row: Any = next(rows, _END)
            except (EOFError, OSError, zlib.error, ijson.JSONError) as error:
                raise _damaged(path, error, done) from error
            if row is _END:
                return
            done += 1
            source.since_row = 0
            yield row if isinstance(row, list) else [row]


def _frames(
    path: Path, columns: list[str], spec: PropertySpec, names: Iterator[str]
) -> Iterator[Frames]:
    structure, target = columns.index("structure"), columns.index(spec.key)
    for i, row in enumerate(_rows(path), start=1):
        name = next(names, None)
        if name is None:
            raise UserError(f"{path}: row {i} has no entry in the index; is the file damaged?")
        try:
            yield _crystal(row[structure], spec.label(number(row[target])), name, spec)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise UserError(
                f"{path}, row {i}: not a structure and a number as MatBench has them "
                f"({type(error).__name__}: {error})"
            ) from error
    missing = next(names, None)
    if missing is not None:
        raise UserError(f"{path}: no row for {missing} of the index; is the file damaged?")


def _crystal(structure: dict[str, Any], label: np.ndarray, name: str, spec: PropertySpec) -> Frames:
    """Read pymatgen's dictionary; the check leaves out disorder and dummy species."""
    sites = structure["sites"]
    species = [sorted(site["species"], key=lambda kind: -kind["occu"]) for site in sites]
    pbc = structure["lattice"].get("pbc", (True, True, True))
    return Frames(
        numbers=np.array([_NUMBERS.get(kinds[0]["element"], 0) for kinds in species], dtype=int),
        coords=np.array([site["xyz"] for site in sites], dtype=np.float64).reshape(1, -1, 3),
        cells=np.array([structure["lattice"]["matrix"]], dtype=np.float64),
        labels={spec.name: label},
        ids=[name],
        pbc=(bool(pbc[0]), bool(pbc[1]), bool(pbc[2])),
        occupancy=min((kinds[0]["occu"] for kinds in species), default=1.0),
        charge=structure.get("charge"),
    )
