"""MatBench v0.1 (Dunn et al., npj Comput. Mater. 6, 138 (2020)): JSON of pymatgen structures."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from deepmd_mft.data.frames import Frames, Skipped, Source
from deepmd_mft.data.readers import PropertySpec
from deepmd_mft.errors import UserError
from deepmd_mft.structures.elements import atomic_number

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

_CHUNK = 2**20


def read_matbench(path: Path, options: ReadOptions) -> Source:
    """Read a structure task of MatBench; row *i* of the file becomes row *i* here.

    Names are MatBench's own, ``mb-dielectric-0001`` for the first of 4,764 rows.
    """
    with _open(path) as handle:
        head = _read_head(handle, path)
        columns = _list_after(head, "columns", path)
        index = _list_after(head, "index", path)
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
    if options.properties:
        asked = options.properties[0]
        if asked.key not in (name, column):
            raise UserError(f"{path}: the target is {column!r}, not {asked.key!r}")
        spec = PropertySpec(asked.name, column, asked.unit or unit)
    if not spec.unit:
        raise UserError(
            f"{path}: the unit of {column!r} is unknown; give --property {spec.name}={column}:UNIT"
        )
    prefix = "mb-" + task.removeprefix("matbench_").replace("_", "-")
    width = len(str(len(index)))
    frames = _frames(path, columns, spec, prefix, width)
    return Source("matbench", [path], {spec.name: spec.unit}, frames, len(index))


def _open(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8")
    return path.open(encoding="utf-8")


def _damaged(path: Path, error: Exception, rows: int = 0) -> UserError:
    return UserError(
        f"{path} ends or is damaged after {rows:,} rows ({error}); an interrupted download "
        "leaves such a file: fetch it again"
    )


def _read_head(handle: IO[str], path: Path) -> str:
    """Read the text before the rows: ``{"index": [...], "columns": [...], "data": [``."""
    head = ""
    try:
        while '"data"' not in head:
            chunk = handle.read(_CHUNK)
            if not chunk:
                raise UserError(f'{path}: no "data" key; is this a MatBench JSON file?')
            head += chunk
    except (EOFError, OSError, zlib.error) as error:
        raise _damaged(path, error) from error
    return head


def _list_after(head: str, key: str, path: Path) -> list[Any]:
    place = head.find(f'"{key}"')
    start = head.find("[", place)
    if place < 0 or start < 0 or place > head.find('"data"'):
        raise UserError(f'{path}: no "{key}" before "data"; is this a MatBench JSON file?')
    value, _ = json.JSONDecoder().raw_decode(head, start)
    return list(value)


def _rows(path: Path) -> Iterator[list[Any]]:
    """Decode ``data`` row by row, so that 2 GB of JSON never stand in memory."""
    decoder = json.JSONDecoder()
    done = 0
    with _open(path) as handle:
        text = _read_head(handle, path)
        text = text[text.index("[", text.index('"data"')) + 1 :]
        start = 0
        while True:
            start = re.compile(r"[\s,]*").match(text, start).end()  # type: ignore[union-attr]
            try:
                if text[start] == "]":
                    return
                row, start = decoder.raw_decode(text, start)
            except (IndexError, json.JSONDecodeError) as unfinished:
                try:
                    chunk = handle.read(_CHUNK)
                except (EOFError, OSError, zlib.error) as error:
                    raise _damaged(path, error, done) from error
                if not chunk:
                    raise _damaged(path, unfinished, done) from unfinished
                text, start = text[start:] + chunk, 0
            else:
                done += 1
                yield row


def _frames(
    path: Path, columns: list[str], spec: PropertySpec, prefix: str, width: int
) -> Iterator[Frames | Skipped]:
    structure, target = columns.index("structure"), columns.index(spec.key)
    for i, row in enumerate(_rows(path)):
        name = f"{prefix}-{i + 1:0{width}d}"
        sites = row[structure]["sites"]
        species = [site["species"] for site in sites]
        if any(len(kinds) != 1 or kinds[0]["occu"] != 1 for kinds in species):
            yield Skipped(name, "sites with partial occupation")
            continue
        value = row[target]
        yield Frames(
            numbers=np.array([atomic_number(kinds[0]["element"]) for kinds in species]),
            coords=np.array([[site["xyz"] for site in sites]], dtype=np.float64),
            cells=np.array([row[structure]["lattice"]["matrix"]], dtype=np.float64),
            labels={spec.name: np.array([[np.nan if value is None else float(value)]])},
            ids=[name],
        )
