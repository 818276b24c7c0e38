"""QM9: 134k molecules at B3LYP/6-31G(2df,p) (Ramakrishnan et al., Sci. Data 1, 140022 (2014)).

Two forms: the original ``dsgdb9nsd.xyz.tar.bz2``, and the CSV files of the PyPI package
``qm9pack`` 1.0.3, which leave out the 3,054 uncharacterised molecules.
"""

from __future__ import annotations

import lzma
import tarfile
import zlib
from typing import TYPE_CHECKING

import numpy as np

from deepmd_mft.data.frames import Frames, Skipped, Source
from deepmd_mft.data.readers.csv_file import csv_rows, require_header
from deepmd_mft.data.readers.values import number
from deepmd_mft.errors import UserError
from deepmd_mft.structures.elements import atomic_number

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deepmd_mft.data.readers import PropertySpec, ReadOptions

__all__ = ["read_qm9"]

#: Name here: unit. Order of the original files' second line, from the rotational constants on.
UNITS = {
    "rot_a": "GHz",
    "rot_b": "GHz",
    "rot_c": "GHz",
    "mu": "D",
    "alpha": "a0^3",
    "homo": "Hartree",
    "lumo": "Hartree",
    "gap": "Hartree",
    "r2": "a0^2",
    "zpve": "Hartree",
    "u0": "Hartree",
    "u298": "Hartree",
    "h298": "Hartree",
    "g298": "Hartree",
    "cv": "cal/mol/K",
}
_COLUMNS = {
    "RotA_GHz": "rot_a",
    "RotB_GHz": "rot_b",
    "RotC_GHz": "rot_c",
    "Dipole_debye": "mu",
    "Polarizability_bohr3": "alpha",
    "HOMO_au": "homo",
    "LUMO_au": "lumo",
    "HOMO_LUMO_gap_au": "gap",
    "R2_bohr2": "r2",
    "ZPVE_au": "zpve",
    "InternalEnergy_0K_au": "u0",
    "InternalEnergy_298K_au": "u298",
    "Enthalphy_298K_au": "h298",
    "GibbsFreeEnergy_298K_au": "g298",
    "Heatcapacity_Cv_cal_mol_K": "cv",
}
_EXCLUDED = "listed as uncharacterised"
# A molecule of 29 atoms needs 3 kB; a tar archive can claim any size.
_LARGEST = 2**20
_UNBRACKET = str.maketrans("[]", "  ")
_UNQUOTE = str.maketrans("", "", "[]' \"")


def read_qm9(path: Path, options: ReadOptions) -> Source:
    """Read QM9 from the tar archive, a CSV file or the folder of the three CSV files."""
    specs = options.select(UNITS)
    units = {name: unit for spec in specs for name, unit in spec.units.items()}
    excluded = _excluded(options.exclude) if options.exclude else set()
    if path.is_dir() or path.suffix == ".csv":
        files = sorted(path.glob("qm9_part*.csv")) if path.is_dir() else [path]
        frames = _from_csv(files, specs, excluded)
        if not files:
            raise UserError(f"{path} holds no qm9_part*.csv")
        total = sum(_count_rows(file) for file in files)
    else:
        files, total = [path], 133885
        frames = _from_tar(path, specs, excluded)
    return Source("qm9", files, units, frames, total, notes=["B3LYP/6-31G(2df,p)"])


def _count_rows(path: Path) -> int:
    with path.open("rb") as handle:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: handle.read(2**20), b"")) - 1


def _excluded(path: Path) -> set[int]:
    """Numbers of the molecules in ``uncharacterized.txt``: the first word of its table."""
    words = (line.split() for line in path.read_text(errors="replace").splitlines())
    found = {int(line[0]) for line in words if line and line[0].isdecimal()}
    if not found:
        raise UserError(f"{path}: no line begins with the number of a molecule; nothing to exclude")
    return found


def _from_csv(
    files: list[Path], specs: list[PropertySpec], excluded: set[int]
) -> Iterator[Frames | Skipped]:
    for file in files:
        rows = csv_rows(file)
        _, header = next(rows, (0, []))
        require_header(file, header)
        place = {_COLUMNS.get(name, name): i for i, name in enumerate(header)}
        wanted = ["Index", "SMILES", "Elements", "XYZ_Ang", *(s.key for s in specs)]
        missing = [name for name in wanted if name not in place]
        if missing:
            raise UserError(f"{file}: no column {missing[0]!r}; is this a qm9pack CSV file?")
        columns = [place[name] for name in wanted]
        for line, row in rows:
            yield _from_row(f"{file}, line {line}", row, columns, specs, excluded)


def _from_row(
    place: str, row: list[str], columns: list[int], specs: list[PropertySpec], excluded: set[int]
) -> Frames | Skipped:
    """Read index, SMILES, elements, positions and values as qm9pack writes them."""
    try:
        index, smiles, elements, xyz, *values = (row[column] for column in columns)
        name = f"gdb_{int(index)}"
        if int(index) in excluded:
            return Skipped(name, _EXCLUDED)
        symbols = elements.translate(_UNQUOTE).split(",")
        flat = [float(text) for text in xyz.translate(_UNBRACKET).split(",")]
        return Frames(
            numbers=np.array([atomic_number(symbol) for symbol in symbols]),
            coords=np.array(flat).reshape(1, len(symbols), 3),
            labels={
                spec.name: spec.label(number(value))
                for spec, value in zip(specs, values, strict=True)
            },
            ids=[name],
            smiles=smiles,
        )
    except (IndexError, ValueError) as error:
        raise UserError(
            f"{place}: not a complete molecule ({error}); is the file truncated?"
        ) from error


def _from_tar(
    path: Path, specs: list[PropertySpec], excluded: set[int]
) -> Iterator[Frames | Skipped]:
    done = 0
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                handle = archive.extractfile(member)
                if handle is None or not member.name.endswith(".xyz"):
                    continue
                if member.size > _LARGEST:
                    raise UserError(
                        f"{path}: {member.name} of {member.size:,} bytes is no molecule"
                    )
                yield _from_xyz(handle.read(), member.name, specs, excluded)
                done += 1
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise UserError(
            f"{path} ends or is damaged after {done:,} molecules ({error}); an interrupted "
            "download leaves such a file: fetch it again"
        ) from error


def _from_xyz(
    content: bytes, name: str, specs: list[PropertySpec], excluded: set[int]
) -> Frames | Skipped:
    """Read one ``dsgdb9nsd_*.xyz``: atoms, properties, coordinates, frequencies, SMILES."""
    try:
        lines = content.decode().replace("*^", "e").splitlines()
        natoms = int(lines[0])
        words = lines[1].split()
        index = int(words[1])
        if index in excluded:
            return Skipped(f"gdb_{index}", _EXCLUDED)
        values = dict(zip(UNITS, (number(word) for word in words[2:17]), strict=True))
        atoms = [line.split() for line in lines[2 : 2 + natoms]]
        return Frames(
            numbers=np.array([atomic_number(atom[0]) for atom in atoms]),
            coords=np.array([[[float(x) for x in atom[1:4]] for atom in atoms]]),
            labels={spec.name: spec.label(values[spec.key]) for spec in specs},
            ids=[f"gdb_{index}"],
            smiles=lines[3 + natoms].split("\t")[0],
        )
    except (IndexError, ValueError) as error:
        raise UserError(f"{name}: not a QM9 molecule ({error})") from error
