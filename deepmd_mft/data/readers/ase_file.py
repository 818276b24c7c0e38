"""Whatever ase reads: extxyz, ASE databases, cif, POSCAR, xyz, with properties from ``info``."""

from __future__ import annotations

import io
import json
import re
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from deepmd_mft.data.frames import Frames, Skipped, Source
from deepmd_mft.data.readers.sdf import molecules
from deepmd_mft.data.readers.values import number
from deepmd_mft.data.units import energy_factor, force_factor, stress_to_virial
from deepmd_mft.errors import UserError, missing_package

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ase import Atoms

    from deepmd_mft.data.readers import PropertySpec, ReadOptions

__all__ = [
    "NO_STRUCTURE",
    "AtomsReader",
    "iterate",
    "iterate_cif",
    "occupancy",
    "read_ase",
    "require_ase",
]

#: Why a file was left out that holds no structure.
NO_STRUCTURE = "the file holds no structure"

# ase's results with one value per atom: no property of a structure.
_PER_ATOM = {"forces", "magmoms", "charges", "energies", "stresses", "dipoles"}
# Where ase and others keep the occupancy of sites.
_OCCUPANCY = ("occupancy", "occupancies")
# What ase looked up as an element when it raises this as a KeyError.
_LABEL = re.compile(r"[A-Za-z]{1,3}\d*[+-]?\d*'*")
_LONGEST_LINE = 2**20
# What is read without being asked for, or is no label of a structure.
_TAKEN = {"energy", "free_energy", "forces", "stress", "positions", "momenta", "charge"}
_MOST_LISTED = 12
# Formats whose units are whatever was written.
_OPEN_UNITS = {"extxyz", "db", "json", "traj", "bundletrajectory", "sdf", "mol"}


def require_ase() -> None:
    """Say what to install if ase is missing."""
    try:
        import ase  # noqa: F401, PLC0415
    except ImportError as error:
        raise missing_package("this source needs ase", "data") from error


def read_ase(path: Path, options: ReadOptions) -> Source:
    """Read one file (all its frames) or every file of a folder (all frames of each)."""
    require_ase()
    options.require_units()
    reader = AtomsReader(options)
    files = [path]
    if path.is_dir():
        entries = sorted(path.iterdir())
        files = [p for p in entries if p.is_file() and not p.name.startswith(".")]
        others = [p.name for p in entries if p not in files]
        if others:
            names = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
            reader.notes.append(f"hidden files and folders in {path} are not read: {names}")
        if not files:
            raise UserError(f"{path} holds no files to read")
    if options.energy_unit or options.force_unit or options.stress_unit:
        for file in files:
            _require_open_units(file)
    frames, grouped = _frames(files, reader), options.group_key is not None
    return Source("ase", files, options.units, frames, notes=reader.notes, grouped=grouped)


def _require_open_units(file: Path) -> None:
    """Raise a UserError if ase has made eV and Angstrom of what a file holds."""
    kind = _kind(file)
    if kind not in _OPEN_UNITS:
        raise UserError(
            f"{file}: ase converts the numbers of {kind} files to eV and Angstrom; leave out "
            "--energy-unit, --force-unit and --stress-unit"
        )


def _frames(files: list[Path], reader: AtomsReader) -> Iterator[Frames | Skipped]:
    for file in files:
        place = ""
        for i, atoms in enumerate(iterate(file)):
            place = f"{file.name}:{i}"
            yield reader.frames(atoms, place)
        if not place:
            yield Skipped(file.name, NO_STRUCTURE)


def iterate(path: Path) -> Iterator[Atoms]:
    """Yield the structures of a file one by one."""
    return _explained(_structures(path), str(path))


def iterate_cif(text: str, place: str) -> Iterator[Atoms]:
    """Yield the structures of the content of a CIF file."""
    import ase.io  # noqa: PLC0415

    return _explained(ase.io.iread(io.StringIO(text), index=":", format="cif"), place)


def _database(name: str, kind: str) -> Iterator[Atoms]:
    import ase.db  # noqa: PLC0415

    with ase.db.connect(name, type=kind) as database:
        for row in database.select():
            atoms = row.toatoms()
            atoms.info.update(row.data)
            atoms.info.update(row.key_value_pairs)
            yield atoms


def _absolute(path: Path) -> str:
    """Return a name that is none of ase's special ones (postgresql://, FILE@INDEX)."""
    return str(path.absolute())


def _kind(path: Path) -> str:
    """Return ase's name of a file's format."""
    from ase.io.formats import filetype  # noqa: PLC0415

    return "db" if path.suffix == ".db" else str(filetype(_absolute(path)))


def _structures(path: Path) -> Iterator[Atoms]:
    from ase.io import iread  # noqa: PLC0415
    from ase.io.formats import open_with_compression  # noqa: PLC0415

    name, kind = _absolute(path), _kind(path)
    if kind in {"db", "json"}:
        yield from _database(name, kind)
        return
    if kind not in {"extxyz", "mol", "sdf"}:
        yield from iread(name, index=":", format=kind, do_not_split_by_at_sign=True)
        return
    with _Text(open_with_compression(name, "rb"), encoding="utf-8") as handle:
        if kind != "extxyz":
            yield from molecules(handle)
            return
        yield from iread(handle, index=":", format=kind)
        if any(line.strip() for line in handle):  # ase takes a blank line for the end
            raise ValueError(
                "there is more after a blank line; remove blank lines between structures"
            )


class _Text(io.TextIOWrapper):
    """A text that can be read past its end only a few times, whatever number of atoms it claims."""

    past_end = 0

    def readline(self, size: int = -1, /) -> str:  # type: ignore[override]
        """Read a line of bounded length."""
        line = super().readline(_LONGEST_LINE if size < 0 else size)
        if len(line) == _LONGEST_LINE:
            raise ValueError(f"a line of more than {_LONGEST_LINE:,} characters")
        self.past_end = 0 if line else self.past_end + 1
        if self.past_end > 3:
            raise EOFError("it ends before the last atom")
        return line


def _explained(structures: Iterator[Atoms], place: str) -> Iterator[Atoms]:
    """Yield structures; what ase raises becomes one message."""
    done = 0
    try:
        for atoms in structures:
            yield atoms
            done += 1
    except Exception as error:
        # ase's parsers raise whatever comes up (XYZError, IndexError, UnknownFileTypeError).
        raise UserError(
            f"{place}: ase cannot read it after {done:,} structures: {_reason(error)}"
        ) from error


def _reason(error: Exception) -> str:
    kind, key = type(error).__name__, str(error.args[0]) if error.args else ""
    if kind == "UnknownFileTypeError":
        known = f" ({error})" if str(error) else ""
        return f"neither its name nor its content is that of a structure file{known}"
    if isinstance(error, KeyError) and _LABEL.fullmatch(key):
        advice = "write H for D and T, which ase does not know, and O for a label such as O1"
        return f"{key!r} is not an element symbol; {advice}"
    if isinstance(error, UnicodeError):
        return f"it is not UTF-8 text ({error})"
    text = f"{kind}: {error}" if str(error) else kind
    if isinstance(error, (EOFError, zlib.error)) or kind == "XYZError":
        return f"{text}; is the file truncated?"
    return text


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
        self._places: dict[str, str] = {}  # of names that were read
        self._left: list[str] = []  # numbers that were not taken

    def frames(self, atoms: Atoms, place: str) -> Frames:
        """Convert one structure; ``place`` names it in errors and as its default name."""
        options = self.options
        periodic = bool(atoms.pbc.any()) and not options.no_cell
        cells = np.array(atoms.cell)[None] if periodic else None
        labels = self._labels(atoms, cells, place)
        for spec in options.properties:
            labels[spec.name] = _property(atoms, spec, place)
        name = self._name(atoms, options.id_key, place) if options.id_key else place
        group = ""
        if options.group_key:
            if options.group_key not in atoms.info:
                raise UserError(
                    f"{place}: no group {options.group_key!r} in info; there is "
                    f"{_listed(atoms.info)}"
                )
            group = str(atoms.info[options.group_key])
        self._note_left(atoms)
        pbc = tuple(bool(along) for along in atoms.pbc)
        return Frames(
            numbers=atoms.numbers.astype(np.int64),
            coords=atoms.positions[None].astype(np.float64),
            cells=cells,
            labels=labels,
            ids=[name],
            smiles=str(atoms.info.get("smiles", "")),
            group=group,
            pbc=(pbc[0], pbc[1], pbc[2]),
            occupancy=occupancy(atoms),
            charge=_charge(atoms),
        )

    def _note_left(self, atoms: Atoms) -> None:
        """Keep a note of what may be labels, and is not taken."""
        options = self.options
        keys = {options.energy_key, options.force_key, *(spec.key for spec in options.properties)}
        taken = keys | _TAKEN
        found = [("info", name) for name, value in atoms.info.items() if _may_be_label(value)]
        vectors = (name for name, value in atoms.arrays.items() if np.shape(value)[1:] == (3,))
        found += [("arrays", name) for name in vectors]
        found += [("results", name) for name in _results(atoms)]
        new = [f"{name} ({where})" for where, name in found if name not in taken]
        new = [one for one in new if one not in self._left]
        if not new:
            return
        if self._left:
            self.notes.pop()
        self._left += new
        more = ", ..." if len(self._left) > _MOST_LISTED else ""
        self.notes.append(f"not taken: {', '.join(self._left[:_MOST_LISTED])}{more}")

    def _name(self, atoms: Atoms, key: str, place: str) -> str:
        """Return the name of a structure, which no other has."""
        if key not in atoms.info:
            raise UserError(f"{place}: no name {key!r} in info")
        name = str(atoms.info[key])
        if name in self._places:
            raise UserError(
                f"{place}: the name {name!r} was already used by {self._places[name]}; names must "
                "be unique (leave --id-key out to number the structures)"
            )
        self._places[name] = place
        return name

    def _labels(self, atoms: Atoms, cells: np.ndarray | None, place: str) -> dict[str, np.ndarray]:
        """Energy, force and virial, from the stored calculator or the keys given."""
        results, options = _results(atoms), self.options
        energy, force = results.get("energy"), results.get("forces")
        if options.energy_key:
            energy = _find(atoms.info, results, options.energy_key, "info", place)
        if options.force_key:
            force = _find(atoms.arrays, results, options.force_key, "arrays", place)
        labels = {}
        if energy is not None:
            labels["energy"] = _numbers(energy, "energy", place).reshape(-1) * self.energy
        if force is not None:
            labels["force"] = _numbers(force, "forces", place)[None] * self.force
        stress = results.get("stress")
        if stress is not None and cells is not None:
            tensor = _numbers(stress, "stress", place).reshape(1, -1)
            labels["virial"] = stress_to_virial(tensor, cells, self.stress_unit)
        return labels


def _may_be_label(value: Any) -> bool:
    return isinstance(value, (float, np.ndarray)) and np.asarray(value).dtype.kind in "if"


def _results(atoms: Atoms) -> dict[str, Any]:
    """Return what a calculator has left in the file: energy, forces, dipole, magmom, ..."""
    return dict(atoms.calc.results) if atoms.calc is not None else {}


def _find(own: dict[str, Any], results: dict[str, Any], key: str, where: str, place: str) -> Any:
    """Take a value from where the file keeps it, or from the calculator's results."""
    for content in (own, results):
        if key in content:
            return content[key]
    raise UserError(
        f"{place}: no {key!r} in {where}; there is {_listed(own)}, and in the calculator's "
        f"results {_listed(results)}"
    )


def _listed(content: dict[str, Any]) -> str:
    return ", ".join(map(str, content)) or "nothing"


def _property(atoms: Atoms, spec: PropertySpec, place: str) -> np.ndarray:
    value = _find(atoms.info, _results(atoms), spec.key, "info", place)
    if spec.key in _PER_ATOM and spec.key not in atoms.info:
        raise UserError(f"{place}: {spec.key} has a value for every atom; it is no property")
    return spec.label(_numbers(value, spec.key, place))


def _numbers(value: Any, key: str, place: str) -> np.ndarray:
    try:
        if np.ndim(value) == 0:
            value = number(value.item() if isinstance(value, np.generic) else value)
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise UserError(f"{place}: {key} = {value!r:.80} is not a number") from None


def occupancy(atoms: Atoms) -> float:
    """Return the largest share that one element has of a site, where it is smallest."""
    found = [atoms.info[name] for name in _OCCUPANCY if name in atoms.info]
    found += [atoms.arrays[name] for name in _OCCUPANCY if name in atoms.arrays]
    return min((_smallest_share(value) for value in found), default=1.0)


def _smallest_share(value: Any) -> float:
    """Read ase's ``{site: {element: share}}``, a list of such dictionaries, or of numbers."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        value = json.loads(value)
    if isinstance(value, dict):
        shares = list(value.values())
        if shares and not any(isinstance(share, dict) for share in shares):
            elements = all(isinstance(key, str) and key[:1].isalpha() for key in value)
            pick = max if elements else min
            return pick(_share(share) for share in shares)
        return min((_smallest_share(share) for share in shares), default=1.0)
    if isinstance(value, (list, tuple, np.ndarray)):
        return min((_smallest_share(share) for share in value), default=1.0)
    return _share(value)


def _share(value: Any) -> float:
    """Return an occupancy, NaN if it cannot be read; CIF writes ``.`` or ``?`` for 1."""
    if isinstance(value, str):
        value = value.split("(")[0].strip()  # 0.5(1): with its standard uncertainty
        if value in ("", ".", "?"):
            return 1.0
    try:
        return number(value)
    except ValueError:
        return float("nan")


def _charge(atoms: Atoms) -> float | None:
    for key in ("charge", "total_charge"):
        value = atoms.info.get(key)
        if isinstance(value, (int, float, np.number)) and np.isfinite(value):
            return float(value)
    return None
