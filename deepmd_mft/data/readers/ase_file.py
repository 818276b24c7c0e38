"""Whatever ase reads: extxyz, ASE databases, cif, POSCAR, xyz, with properties from ``info``."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from deepmd_mft.data.frames import Frames, Source
from deepmd_mft.data.units import energy_factor, force_factor, stress_to_virial
from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ase import Atoms

    from deepmd_mft.data.readers import ReadOptions

__all__ = ["AtomsReader", "read_ase", "require_ase"]


def require_ase() -> None:
    """Say what to install if ase is missing."""
    try:
        import ase  # noqa: F401, PLC0415
    except ImportError as error:
        raise UserError("this source needs ase: pip install 'deepmd-mft[data]'") from error


def read_ase(path: Path, options: ReadOptions) -> Source:
    """Read one file (all its frames) or every file of a folder (all of one system each)."""
    require_ase()
    options.require_units()
    files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    reader = AtomsReader(options)
    units = {spec.name: spec.unit for spec in options.properties}
    return Source("ase", files, units, _frames(files, reader), notes=reader.notes)


def _frames(files: list[Path], reader: AtomsReader) -> Iterator[Frames]:
    seen: dict[str, str] = {}
    for file in files:
        for i, atoms in enumerate(iterate(file)):
            place = f"{file.name}:{i}"
            frames = reader.frames(atoms, place)
            name = frames.ids[0]
            if reader.options.id_key and name in seen:
                raise UserError(
                    f"{place}: the name {name!r} was already used by {seen[name]}; names must "
                    "be unique (leave --id-key out to number the structures)"
                )
            if reader.options.id_key:
                seen[name] = place
            yield frames


def iterate(path: Path) -> Iterator[Atoms]:
    """Yield the structures of a file one by one."""
    import ase.db  # noqa: PLC0415
    import ase.io  # noqa: PLC0415

    done = 0
    try:
        if path.suffix == ".db":
            with ase.db.connect(str(path)) as database:
                for row in database.select():
                    atoms = row.toatoms()
                    atoms.info.update(row.key_value_pairs)
                    yield atoms
                    done += 1
        else:
            for atoms in ase.io.iread(str(path), index=":"):
                yield atoms
                done += 1
    except (UserError, PermissionError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001
        # ase's parsers raise whatever comes up (XYZError, IndexError, UnknownFileTypeError).
        raise UserError(
            f"{path}: ase cannot read it after {done:,} structures "
            f"({type(error).__name__}: {error}); is the file truncated?"
        ) from (None if isinstance(error, (EOFError, zlib.error)) else error)


class AtomsReader:
    """Turn ``ase.Atoms`` into :class:`Frames`, with the units that the user names.

    Parameters
    ----------
    options : ReadOptions
        Keys and units.
    """

    def __init__(self, options: ReadOptions) -> None:
        self.options = options
        energy_unit = options.energy_unit or "eV"
        force_unit = options.force_unit or f"{energy_unit}/angstrom"
        self.energy = energy_factor(energy_unit)
        self.force = force_factor(force_unit)
        self.stress_unit = options.stress_unit or "eV/A^3"
        self.notes = [f"energies read as {energy_unit}, forces as {force_unit}"]
        if options.no_cell:
            self.notes.append("cells dropped (--no-cell)")

    def frames(self, atoms: Atoms, place: str) -> Frames:
        """Convert one structure; ``place`` names it in errors and as its default name."""
        options = self.options
        periodic = bool(atoms.pbc.any()) and not options.no_cell
        cells = np.array(atoms.cell)[None] if periodic else None
        labels = self._labels(atoms, cells)
        for spec in options.properties:
            if spec.key not in atoms.info:
                known = ", ".join(map(str, atoms.info)) or "nothing"
                raise UserError(f"{place}: no {spec.key!r} in info; there is {known}")
            labels[spec.name] = _property(atoms.info[spec.key], spec.key, place)
        name = place
        if options.id_key:
            if options.id_key not in atoms.info:
                raise UserError(f"{place}: no name {options.id_key!r} in info")
            name = str(atoms.info[options.id_key])
        return Frames(
            numbers=atoms.numbers.astype(np.int64),
            coords=atoms.positions[None].astype(np.float64),
            cells=cells,
            labels=labels,
            ids=[name],
            smiles=str(atoms.info.get("smiles", "")),
        )

    def _labels(self, atoms: Atoms, cells: np.ndarray | None) -> dict[str, np.ndarray]:
        """Energy, force and virial, from the stored calculator or the keys given."""
        results: dict[str, Any] = dict(atoms.calc.results) if atoms.calc is not None else {}
        options = self.options
        energy = results.get("energy")
        if options.energy_key:
            energy = atoms.info.get(options.energy_key, results.get(options.energy_key))
            if energy is None:
                raise UserError(f"no {options.energy_key!r} in info; there is {list(atoms.info)}")
        force = results.get("forces")
        if options.force_key:
            force = atoms.arrays.get(options.force_key, results.get(options.force_key))
            if force is None:
                raise UserError(f"no {options.force_key!r} in arrays, but {list(atoms.arrays)}")
        labels = {}
        if energy is not None:
            labels["energy"] = np.array([float(energy)]) * self.energy
        if force is not None:
            labels["force"] = np.asarray(force, dtype=np.float64)[None] * self.force
        stress = results.get("stress")
        if stress is not None and cells is not None:
            tensor = np.asarray(stress, dtype=np.float64).reshape(1, -1)
            labels["virial"] = stress_to_virial(tensor, cells, self.stress_unit)
        return labels


def _property(value: object, key: str, place: str) -> np.ndarray:
    try:
        return np.asarray(value, dtype=np.float64).reshape(1, -1)
    except (TypeError, ValueError):
        raise UserError(f"{place}: {key} = {value!r} is not a number") from None
