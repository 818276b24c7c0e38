"""CGCNN's layout: structure files and a table of names and values that has no header.

``id_prop.csv`` (CGCNN, ALIGNN) or ``targets.csv`` (MatDeepLearn, MatUQ) holds ``name,value,...``
in each line; the structure of ``name`` is ``name.cif`` or another file that ase reads, beside
the table or in a folder beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deepmd_mft.data.frames import Source
from deepmd_mft.data.readers.ase_file import require_ase
from deepmd_mft.data.readers.csv_file import csv_rows, require_header
from deepmd_mft.data.readers.table import UNLABELLED, Row, from_files, labels_of
from deepmd_mft.data.readers.values import number
from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deepmd_mft.data.readers import ReadOptions

__all__ = ["TABLES", "has_header", "read_cgcnn"]

#: Names of the table.
TABLES = ("id_prop.csv", "targets.csv")


def has_header(path: Path) -> bool:
    """Whether the first line names columns, that is, holds no number after its first cell."""
    _, cells = next(csv_rows(path), (0, []))
    for cell in cells[1:]:
        try:
            number(cell)
        except ValueError:
            continue
        if cell.strip():
            return False
    return len(cells) > 1


def read_cgcnn(path: Path, options: ReadOptions) -> Source:
    """Read a folder, or its table; columns of values are called ``1``, ``2``, ..."""
    require_ase()
    options.require_units()
    table = path
    if path.is_dir():
        found = [path / name for name in TABLES if (path / name).is_file()]
        if len(found) != 1:
            raise UserError(f"{path}: expected one of {' and '.join(TABLES)}, found {len(found)}")
        table = found[0]
    _, first = next(csv_rows(table), (0, []))
    header = has_header(table)
    columns = [cell.strip() if header else str(i) for i, cell in enumerate(first)][1:]
    require_header(table, columns)
    for spec in options.properties:
        if spec.key not in columns:
            example = f"--property {spec.name}=1:{spec.unit}"
            raise UserError(
                f"{table}: no column {spec.key!r}; there are {', '.join(columns) or 'none'}"
                + ("" if header else f" (it has no header: the first value is {example})")
            )
    notes = [] if options.properties else [UNLABELLED]
    frames = from_files(_rows(table, columns, options, header=header), table.parent, options)
    return Source("cgcnn", [table], options.units, frames, notes=notes)


def _rows(table: Path, columns: list[str], options: ReadOptions, *, header: bool) -> Iterator[Row]:
    files = _files_by_name(table)
    seen: dict[str, int] = {}
    lines = csv_rows(table)
    if header:
        next(lines)
    for line, cells in lines:
        name, place = cells[0].strip(), f"{table}, line {line}"
        if len(cells) <= len(columns):
            raise UserError(f"{place}: {len(cells)} fields, expected {len(columns) + 1}")
        if name in seen:
            raise UserError(f"{table}: lines {seen[name]} and {line} are both called {name!r}")
        seen[name] = line
        candidates = files.get(name, [])
        if len(candidates) != 1:
            names = ", ".join(str(file) for file in candidates[:3]) or f"no {name}.cif"
            raise UserError(f"{place}: expected one structure file called {name!r}, found {names}")
        values = dict(zip(columns, cells[1:], strict=False))
        labels = labels_of(values, options.properties, place)
        yield Row(place, name, labels, candidates[0].absolute())


def _files_by_name(table: Path) -> dict[str, list[Path]]:
    """List the files beside the table and one folder below, by their names without ending."""
    files: dict[str, list[Path]] = {}
    for pattern in ("*", "*/*"):
        for file in table.parent.glob(pattern):
            if file.is_file() and not file.name.startswith("."):
                for name in {file.stem, file.name}:
                    files.setdefault(name, []).append(file)
    return files
