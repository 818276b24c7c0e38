"""A table (CSV or Parquet) with a column of structure files, or of SMILES."""

from __future__ import annotations

import csv
import gzip
from typing import TYPE_CHECKING, Any

import numpy as np

from deepmd_mft.data.frames import Frames, Skipped, Source
from deepmd_mft.data.readers.ase_file import AtomsReader, iterate, require_ase
from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deepmd_mft.data.readers import PropertySpec, ReadOptions

__all__ = ["read_table"]

_STRUCTURE_COLUMNS = ("structure", "structure_file", "file", "path", "cif")
_SMILES_COLUMNS = ("smiles", "SMILES")
# One conformer a molecule, the same every time.
_SEED = 42


def read_table(path: Path, options: ReadOptions) -> Source:
    """Read a table; paths of structure files are relative to it.

    Geometries from SMILES are single conformers, embedded with RDKit's ETKDGv3 and relaxed
    with MMFF94 (UFF where it has no parameters): a stand-in, marked as such in the notes.
    """
    options.require_units()
    if not options.properties:
        raise UserError(f"{path}: say which columns to take, --property NAME=COLUMN:UNIT")
    columns = _columns(path)
    for spec in options.properties:
        if spec.key not in columns:
            raise UserError(f"{path}: no column {spec.key!r}; there are {', '.join(columns)}")
    structure = _find(path, columns, options.structure_column, _STRUCTURE_COLUMNS)
    smiles = _find(path, columns, options.smiles_column, _SMILES_COLUMNS)
    if structure is None and smiles is None:
        raise UserError(
            f"{path}: no column of structure files or SMILES; name one with "
            f"--structure-column or --smiles-column (there are {', '.join(columns)})"
        )
    id_key = _find(path, columns, options.id_key, ("id",))
    units = {spec.name: spec.unit for spec in options.properties}
    notes = []
    if structure is None:
        notes.append("geometries generated from SMILES (RDKit ETKDGv3 + MMFF94), not measured")
        frames = _from_smiles(path, str(smiles), id_key, options.properties)
    else:
        require_ase()
        frames = _from_files(path, structure, smiles, id_key, options)
    return Source("table", [path], units, frames, notes=notes)


def _columns(path: Path) -> list[str]:
    if path.suffix == ".parquet":
        return list(_parquet(path).schema_arrow.names)
    return next(iter(_csv_rows(path, header=True)), [])


def _find(path: Path, columns: list[str], asked: str | None, usual: tuple[str, ...]) -> str | None:
    if asked is not None and asked not in columns:
        raise UserError(f"{path}: no column {asked!r}; there are {', '.join(columns)}")
    return asked or next((name for name in usual if name in columns), None)


def _parquet(path: Path) -> Any:
    try:
        import pyarrow as pa  # noqa: PLC0415
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError as error:
        raise UserError("Parquet needs pyarrow: pip install 'deepmd-mft[data]'") from error
    try:
        return parquet.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise UserError(f"{path}: not a complete Parquet file ({error})") from error


def _csv_rows(path: Path, *, header: bool = False) -> Iterator[Any]:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", newline="", encoding="utf-8") as handle:
            table = csv.DictReader(handle)
            if header:
                yield list(table.fieldnames or [])
                return
            for row in table:
                if None in row or None in row.values():
                    raise UserError(f"{path}, line {table.line_num}: not as many fields as columns")
                yield row
    except EOFError as error:
        raise UserError(f"{path} is truncated ({error}); fetch it again") from error


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    if path.suffix == ".parquet":
        for batch in _parquet(path).iter_batches(batch_size=1000):
            yield from batch.to_pylist()
    else:
        yield from _csv_rows(path)


def _named_rows(path: Path, id_key: str | None) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield row number (from 1), name and content; names must be unique."""
    seen: dict[str, int] = {}
    for number, row in enumerate(_rows(path), start=1):
        name = str(row[id_key]) if id_key else f"{path.name}:{number}"
        if id_key:
            if name in seen:
                raise UserError(
                    f"{path}: rows {seen[name]} and {number} are both called {name!r}; names "
                    f"in column {id_key!r} must be unique"
                )
            seen[name] = number
        yield number, name, row


def _labels(row: dict[str, Any], specs: list[PropertySpec], place: str) -> dict[str, np.ndarray]:
    labels = {}
    for spec in specs:
        value = row[spec.key]
        try:
            empty = value is None or value == ""
            labels[spec.name] = np.array([[np.nan if empty else float(value)]])
        except (TypeError, ValueError):
            raise UserError(f"{place}: {spec.key} = {value!r} is not a number") from None
    return labels


def _from_files(
    path: Path, structure: str, smiles: str | None, id_key: str | None, options: ReadOptions
) -> Iterator[Frames | Skipped]:
    from dataclasses import replace  # noqa: PLC0415

    reader = AtomsReader(replace(options, properties=[], id_key=None))
    for number, name, row in _named_rows(path, id_key):
        place = f"{path}, row {number}"
        file = path.parent / str(row[structure])
        if not file.is_file():
            raise UserError(
                f"{place}: structure file {file} does not exist; correct column {structure!r} "
                "or remove the row"
            )
        frames = reader.frames(next(iterate(file)), name)
        frames.ids = [name]
        frames.smiles = str(row[smiles]) if smiles else ""
        frames.labels.update(_labels(row, options.properties, place))
        yield frames


def _from_smiles(
    path: Path, column: str, id_key: str | None, specs: list[PropertySpec]
) -> Iterator[Frames | Skipped]:
    try:
        from rdkit import Chem, RDLogger  # noqa: PLC0415
        from rdkit.Chem import AllChem  # noqa: PLC0415
    except ImportError as error:
        raise UserError("SMILES need RDKit: pip install 'deepmd-mft[data]'") from error
    RDLogger.DisableLog("rdApp.*")
    for number, name, row in _named_rows(path, id_key):
        labels = _labels(row, specs, f"{path}, row {number}")
        molecule = Chem.MolFromSmiles(row[column] or "")
        if molecule is None or not molecule.GetNumAtoms():
            yield Skipped(name, "RDKit cannot parse the SMILES")
            continue
        molecule = Chem.AddHs(molecule)
        parameters = AllChem.ETKDGv3()
        parameters.randomSeed = _SEED
        if AllChem.EmbedMolecule(molecule, parameters) != 0:
            yield Skipped(name, "RDKit finds no geometry for the SMILES")
            continue
        if AllChem.MMFFHasAllMoleculeParams(molecule):
            AllChem.MMFFOptimizeMolecule(molecule)
        else:
            AllChem.UFFOptimizeMolecule(molecule)
        yield Frames(
            numbers=np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()]),
            coords=molecule.GetConformer().GetPositions()[None],
            labels=labels,
            ids=[name],
            smiles=row[column],
        )
