"""A table (CSV or Parquet) with a column of structure files, of CIF contents, or of SMILES."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from deepmd_mft.data.frames import Frames, Skipped, Source
from deepmd_mft.data.readers.ase_file import (
    NO_STRUCTURE,
    AtomsReader,
    iterate,
    iterate_cif,
    require_ase,
)
from deepmd_mft.data.readers.csv_file import csv_rows, require_header
from deepmd_mft.data.readers.smiles import Molecule, from_smiles, require_rdkit
from deepmd_mft.data.readers.values import number
from deepmd_mft.errors import UserError, missing_package

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    import numpy as np
    from ase import Atoms

    from deepmd_mft.data.readers import PropertySpec, ReadOptions

__all__ = ["UNLABELLED", "Row", "from_files", "labels_of", "read_table"]

_STRUCTURE_COLUMNS = ("structure", "structure_file", "file", "path", "cif")
_SMILES_COLUMNS = ("smiles", "SMILES")
#: Said of a set that no model can be trained on.
UNLABELLED = "no --property was asked for: structures without a label, for prediction only"


@dataclass
class Row:
    """One row of a table: its place for messages, its name, what it says.

    Parameters
    ----------
    place : str
        File and row.
    name : str
        Name of the structure.
    labels : dict of str to np.ndarray
        Properties by name.
    structure : str or Path
        Path of a structure file, or the content of a CIF file.
    smiles : str
        SMILES, or empty.
    group : str
        The group that its labels belong to, or empty.
    """

    place: str
    name: str
    labels: dict[str, np.ndarray]
    structure: str | Path = ""
    smiles: str = ""
    group: str = ""


def read_table(path: Path, options: ReadOptions) -> Source:
    """Read a table; paths of structure files are relative to it.

    Geometries from SMILES are single conformers, embedded with RDKit's ETKDGv3 and relaxed
    with MMFF94 (UFF where it has no parameters): a stand-in, marked as such in the notes.
    """
    options.require_units()
    columns = _columns(path)
    for spec in options.properties:
        _find(path, columns, spec.key, ())
    structure = _find(path, columns, options.structure_column, _STRUCTURE_COLUMNS)
    smiles = _find(path, columns, options.smiles_column, _SMILES_COLUMNS)
    if structure is None and smiles is None:
        raise UserError(
            f"{path}: no column of structure files or SMILES; name one with "
            f"--structure-column or --smiles-column (there are {', '.join(columns)})"
        )
    id_key = _find(path, columns, options.id_key, ("id",))
    group = _find(path, columns, options.group_key, ())
    rows = _rows(path, options.properties, _Keys(id_key, group, structure, smiles))
    notes = [] if options.properties else [UNLABELLED]
    frames: Iterator[Frames | Skipped]
    if structure is None:
        require_rdkit()
        notes.append("geometries generated from SMILES (RDKit ETKDGv3 + MMFF94), not measured")
        molecules = (Molecule(row.name, row.smiles, row.labels, row.group) for row in rows)
        frames = from_smiles(molecules, options.jobs)
    else:
        require_ase()
        frames = from_files(rows, path.parent, options)
    grouped = group is not None
    return Source("table", [path], options.units, frames, notes=notes, grouped=grouped)


def _columns(path: Path) -> list[str]:
    if path.suffix == ".parquet":
        names = [str(name) for name in _parquet(path).schema_arrow.names]
    else:
        names = _header(next(csv_rows(path), (0, []))[1])
    require_header(path, names)
    return [name for name in names if name]


def _header(cells: list[str]) -> list[str]:
    return [cell.strip() for cell in cells]


def _find(path: Path, columns: list[str], asked: str | None, usual: tuple[str, ...]) -> str | None:
    if asked is not None and asked not in columns:
        raise UserError(f"{path}: no column {asked!r}; there are {', '.join(columns)}")
    return asked or next((name for name in usual if name in columns), None)


def _parquet(path: Path) -> Any:
    try:
        import pyarrow as pa  # noqa: PLC0415
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError as error:
        raise missing_package("Parquet needs pyarrow", "data") from error
    try:
        return parquet.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a complete Parquet file ({error})") from error


def _cells(path: Path, columns: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the columns asked for, row by row."""
    if path.suffix == ".parquet":
        for batch in _parquet(path).iter_batches(batch_size=1000, columns=columns):
            yield from batch.to_pylist()
        return
    rows = csv_rows(path)
    names = _header(next(rows)[1])
    for line, cells in rows:
        if len(cells) < len(names) or any(cell.strip() for cell in cells[len(names) :]):
            raise UserError(
                f"{path}, line {line}: not as many fields as columns ({len(cells)} of {len(names)})"
            )
        content = dict(zip(names, cells, strict=False))
        yield {name: content[name] for name in columns}


@dataclass(frozen=True)
class _Keys:
    """Columns of a table that say what a row is; None where there is none."""

    id: str | None
    group: str | None
    structure: str | None
    smiles: str | None


def _rows(path: Path, specs: list[PropertySpec], keys: _Keys) -> Iterator[Row]:
    """Yield what a table says; names must be unique."""
    own = (keys.id, keys.group, keys.structure, keys.smiles)
    columns = {name for name in own if name} | {s.key for s in specs}
    seen: dict[str, int] = {}
    for i, cells in enumerate(_cells(path, sorted(columns)), start=1):
        place = f"{path}, row {i}"
        name = f"{path.name}:{i}"
        if keys.id:
            name = _text(cells[keys.id])
            if not name:
                raise UserError(f"{place}: no name in column {keys.id!r}")
            if name in seen:
                raise UserError(
                    f"{path}: rows {seen[name]} and {i} are both called {name!r}; names in "
                    f"column {keys.id!r} must be unique"
                )
            seen[name] = i
        labels = labels_of(cells, specs, place)
        at, smiles, group = (
            "" if key is None else _text(cells[key])
            for key in (keys.structure, keys.smiles, keys.group)
        )
        yield Row(place, name, labels, at, smiles, group)


def _text(value: object) -> str:
    missing = value is None or (isinstance(value, float) and math.isnan(value))
    return "" if missing else str(value).strip()


def labels_of(
    cells: dict[str, Any], specs: list[PropertySpec], place: str
) -> dict[str, np.ndarray]:
    """Take the properties asked for from a row."""
    return {spec.name: spec.label(_number(cells, spec.key, place)) for spec in specs}


def _number(cells: dict[str, Any], key: str, place: str) -> float:
    try:
        return number(cells[key])
    except ValueError as error:
        raise UserError(f"{place}: {key} = {error}") from None


def from_files(
    rows: Iterable[Row], folder: Path, options: ReadOptions
) -> Iterator[Frames | Skipped]:
    """Yield the structure that each row means; paths are relative to ``folder``."""
    reader = AtomsReader(replace(options, properties=[], id_key=None, group_key=None))
    for row in rows:
        if not str(row.structure):
            yield Skipped(row.name, "no structure in the row")
            continue
        try:
            atoms = _one(_structures(row.structure, folder), options.frame)
            frames = None if atoms is None else reader.frames(atoms, row.name)
        except UserError as error:
            raise UserError(f"{row.place}: {error}") from error
        if frames is None:
            yield Skipped(row.name, NO_STRUCTURE)
            continue
        frames.smiles = row.smiles or frames.smiles
        frames.group = row.group
        frames.labels.update(row.labels)
        yield frames


def _structures(structure: str | Path, folder: Path) -> Iterator[Atoms]:
    """Read the file that a cell names, or the CIF that it holds."""
    if isinstance(structure, str) and ("\n" in structure or "\r" in structure):
        if "_cell_length_a" not in structure.lower():
            raise UserError(
                f"the cell holds text ({structure.splitlines()[0]!r:.60} ...) that is neither the "
                "name of a structure file nor a CIF; write the structures to files"
            )
        return iterate_cif(structure, "the CIF in the table")
    file = folder / structure
    try:
        found = file.is_file()
    except (OSError, ValueError) as error:
        raise UserError(f"{str(structure)!r:.80} cannot be a file's name ({error})") from error
    if not found:
        raise UserError(
            f"structure file {file} does not exist; correct the table or remove the row"
        )
    return iterate(file)


def _one(structures: Iterator[Atoms], frame: str | None) -> Atoms | None:
    """Take the one structure of a file, or the first or last of several."""
    last = first = next(structures, None)
    if frame == "first" or first is None:
        return first
    more = 0
    for more, last in enumerate(structures, start=1):  # noqa: B007
        pass
    if more and frame is None:
        raise UserError(
            f"the file holds {more + 1} structures and the table has one value; say which is "
            "meant with --frame first or --frame last"
        )
    return last
