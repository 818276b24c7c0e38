"""Readers, one file a source; :func:`open_source` finds the right one.

How to add a reader
-------------------
1. Write ``read_<kind>(path, options)`` in ``data/readers/<kind>.py``. It returns a
   :class:`~deepmd_mft.data.frames.Source` whose ``frames`` yield
   :class:`~deepmd_mft.data.frames.Frames`, in eV and Angstrom, one after the other, and
   :class:`~deepmd_mft.data.frames.Skipped` for what cannot be read. It checks nothing else:
   ``data/check.py`` does that for all.
2. List the kind in ``READERS``, the options that it takes in ``_TAKES``, and let :func:`guess`
   tell it by name and first bytes.
3. Add a file of a few structures, written by the test, to ``tests/data/test_readers.py``, and a
   damaged one to ``tests/data/test_hostile.py``.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from deepmd_mft.data.units import energy_factor
from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import ArrayLike

    from deepmd_mft.data.frames import Frames, Skipped, Source

__all__ = ["READERS", "PropertySpec", "ReadOptions", "open_source"]

READERS = {
    "qm9": "the original dsgdb9nsd tar of xyz files, or qm9pack's CSV files (or their folder)",
    "matbench": "MatBench JSON or JSON.gz",
    "spice": "SPICE 1 and 2 HDF5",
    "ani1x": "ANI-1x HDF5",
    "transition1x": "Transition-1x HDF5",
    "aselmdb": "ASE-LMDB of OMat24, OC20 and others (a file, or a folder of them)",
    "npz": "npz archives of R, F, E, z (MD17, rMD17, QM7-X)",
    "cgcnn": "a folder of structure files with id_prop.csv or targets.csv (name, values)",
    "table": "CSV or Parquet with a column of structure files or of SMILES",
    "ase": "anything ase reads: extxyz, ASE db, cif, POSCAR, xyz, sdf, ... (or a folder of them)",
}


_ATOMS = ("energy_unit", "force_unit", "stress_unit", "energy_key", "force_key", "no_cell")
# What a user can say of each kind; the rest means nothing there.
_TAKES: dict[str, tuple[str, ...]] = {
    "qm9": ("exclude",),
    "matbench": (),
    "spice": (),
    "ani1x": ("level",),
    "transition1x": ("level",),
    "aselmdb": (*_ATOMS, "id_key"),
    "npz": ("energy_unit", "force_unit", "length_unit", "no_cell"),
    "cgcnn": (*_ATOMS, "frame"),
    "table": (*_ATOMS, "id_key", "group_key", "structure_column", "smiles_column", "frame"),
    "ase": (*_ATOMS, "id_key", "group_key"),
}
_CGCNN = ("id_prop.csv", "targets.csv")


@dataclass(frozen=True)
class PropertySpec:
    """One property: its name here, its key in the source, its unit."""

    name: str
    key: str
    unit: str = ""

    @classmethod
    def parse(cls, text: str) -> PropertySpec:
        """Parse ``NAME``, ``NAME=KEY`` or ``NAME=KEY:UNIT``."""
        name, _, rest = text.partition("=")
        key, _, unit = rest.rpartition(":") if ":" in rest else (rest, "", "")
        name = name.strip()
        if not name.isidentifier():
            raise UserError(
                f"--property {text}: {name!r} cannot be a property's name; use letters, digits "
                "and underscores"
            )
        if name in {"force", "virial"}:
            raise UserError(f"--property {text}: a {name} is no property; see --force-key")
        return cls(name, key.strip() or name, unit.strip())

    def of_known_unit(self, key: str, unit: str) -> PropertySpec:
        """Return a property of a source that knows the unit of its ``key``.

        Raises
        ------
        UserError
            If another unit was given: numbers of a property are not converted.
        """
        if self.unit and unit and self.unit.casefold() != unit.casefold():
            raise UserError(
                f"--property {self.name}={self.key}:{self.unit}: {key} is in {unit} in this source "
                "and stays so; leave the unit out"
            )
        return PropertySpec(self.name, key, unit or self.unit)

    @property
    def units(self) -> dict[str, str]:
        """The unit by name; an energy's is always eV and needs none."""
        return {} if self.name == "energy" else {self.name: self.unit}

    def label(self, value: ArrayLike) -> np.ndarray:
        """Return one structure's value as :class:`~deepmd_mft.data.frames.Frames` keep it.

        Shape ``1 x dim``; a property called ``energy`` is the force-field label, which
        deepmd-kit wants in eV: shape ``1``.
        """
        array = np.asarray(value, dtype=np.float64)
        if self.name == "energy":
            return array.reshape(1) * energy_factor(self.unit)
        return array.reshape(1, -1)


@dataclass
class ReadOptions:
    """What a user can say about a source; each reader takes what it knows.

    Parameters
    ----------
    properties : list of PropertySpec
        Which properties to read; empty for all that the reader knows.
    energy_unit, force_unit, length_unit, stress_unit : str, optional
        Units in the file, where the format leaves them open.
    energy_key, force_key : str, optional
        Where an ase file keeps energy and forces, where ase does not know.
    no_cell : bool
        Treat every structure as a molecule.
    id_key : str, optional
        Column or ``info`` key of the names.
    group_key : str, optional
        Column or ``info`` key of the groups of structures that have one label.
    structure_column, smiles_column : str, optional
        Columns of a table.
    level : str, optional
        Level of theory, where a file holds several.
    exclude : Path, optional
        QM9: list of molecules to leave out (``uncharacterized.txt``).
    frame : str, optional
        ``first`` or ``last``: which structure of a file that holds several a table's row means.
    jobs : int
        Processes that make geometries from SMILES.
    """

    properties: list[PropertySpec] = field(default_factory=list)
    energy_unit: str | None = None
    force_unit: str | None = None
    length_unit: str | None = None
    stress_unit: str | None = None
    energy_key: str | None = None
    force_key: str | None = None
    no_cell: bool = False
    id_key: str | None = None
    group_key: str | None = None
    structure_column: str | None = None
    smiles_column: str | None = None
    level: str | None = None
    exclude: Path | None = None
    frame: str | None = None
    jobs: int = 1

    def check(self, kind: str) -> None:
        """Raise a UserError for what means nothing to a kind of source, or is said twice."""
        taken = ("properties", "jobs", *_TAKES[kind])
        for name, value in vars(self).items():
            if name not in taken and value not in (None, False):
                listed = ", ".join(f"--{one.replace('_', '-')}" for one in taken)
                raise UserError(
                    f"--{name.replace('_', '-')} means nothing to a source of kind {kind}, which "
                    f"takes {listed.replace('properties', 'property')}; leave it out"
                )
        names = [spec.name for spec in self.properties]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise UserError(f"--property {twice}: two properties are called so; rename one")

    @property
    def units(self) -> dict[str, str]:
        """Unit of every property asked for."""
        return {name: unit for spec in self.properties for name, unit in spec.units.items()}

    def refuse_properties(self, kind: str) -> None:
        """Say that a source has none."""
        if self.properties:
            raise UserError(f"the {kind} reader takes energies and forces only, no --property")

    def select(self, known: dict[str, str]) -> list[PropertySpec]:
        """Properties to take from a source that names its own.

        Parameters
        ----------
        known : dict of str to str
            Key in the source to unit.
        """
        if not self.properties:
            return [PropertySpec(key, key, unit) for key, unit in known.items()]
        chosen = []
        for spec in self.properties:
            if spec.key not in known:
                raise UserError(
                    f"no property {spec.key!r} in this source; there are {', '.join(known)}"
                )
            chosen.append(spec.of_known_unit(spec.key, known[spec.key]))
        return chosen

    def require_units(self) -> None:
        """Refuse properties without a unit, for sources that do not state any."""
        for spec in self.properties:
            if not spec.unit:
                raise UserError(
                    f"property {spec.name!r} has no unit; write --property "
                    f"{spec.name}={spec.key}:UNIT, for example "
                    f"{spec.name}={spec.key}:eV, or :1 for a pure number"
                )


def open_source(path: Path, kind: str = "auto", options: ReadOptions | None = None) -> Source:
    """Open a source for reading.

    Parameters
    ----------
    path : Path
        File or folder.
    kind : str
        A key of :data:`READERS`, or ``auto``.
    options : ReadOptions, optional
        What the user says about it.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist")
    try:
        kind = guess(path) if kind == "auto" else kind
        reader = {"ase": "ase_file", "transition1x": "ani1x"}.get(kind, kind)
        module = importlib.import_module(f"deepmd_mft.data.readers.{reader}")
        options = options or ReadOptions()
        source: Source = getattr(module, f"read_{kind}")(path, options)
        options.check(kind)
    except Exception as error:
        raise _unreadable(path, error) from error
    source.frames = _guarded(path, source.frames)
    return source


def _guarded(path: Path, frames: Iterator[Frames | Skipped]) -> Iterator[Frames | Skipped]:
    """Yield what a reader yields; whatever a library raises becomes one message."""
    last = ""
    try:
        for item in frames:
            yield item
            last = getattr(item, "id", "") or item.ids[-1]  # type: ignore[union-attr]
    except Exception as error:
        raise _unreadable(path, error, last) from error


def _unreadable(path: Path, error: Exception, last: str = "") -> UserError:
    if isinstance(error, UserError):
        return error
    after = f" after {last}" if last else ""
    reason = f"{type(error).__name__}: {error}".rstrip(": ")
    if isinstance(error, OSError) and error.strerror:
        reason = f"{error.strerror} ({error.filename or path})"
    if isinstance(error, MemoryError):
        reason = "it needs more memory than there is"
    return UserError(f"{path} cannot be read{after}: {reason}; is it damaged, or of another kind?")


def guess(path: Path) -> str:
    """Tell the kind of a source by its name and first bytes."""
    name = path.name.lower()
    if path.is_dir():
        if any(path.glob("*.aselmdb")):
            return "aselmdb"
        if any((path / name).is_file() for name in _CGCNN):
            return "cgcnn"
        return "qm9" if any(path.glob("qm9_part*.csv")) else "ase"
    if name in _CGCNN:
        return _guess_table(path)
    if name.endswith((".tar", ".tar.bz2", ".tar.gz")):
        return "qm9"
    if name.endswith(".csv"):
        with path.open("rb") as handle:
            return "qm9" if b"XYZ_Ang" in handle.readline(4096) else "table"
    for endings, kind in (
        ((".csv.gz", ".parquet"), "table"),
        ((".json", ".json.gz"), "matbench"),
        ((".aselmdb",), "aselmdb"),
        ((".npz",), "npz"),
    ):
        if name.endswith(endings):
            return kind
    if name.endswith((".h5", ".hdf5")):
        return _guess_hdf5(path)
    return "ase"


def _guess_table(path: Path) -> str:
    """Tell CGCNN's table, which has no header, from any other."""
    from deepmd_mft.data.readers.cgcnn import has_header  # noqa: PLC0415

    return "table" if has_header(path) else "cgcnn"


def _guess_hdf5(path: Path) -> str:
    from deepmd_mft.data.readers.hdf5 import groups, open_hdf5  # noqa: PLC0415

    with open_hdf5(path) as handle:
        if "data" in handle or "train" in handle:
            return "transition1x"
        keys = next((set(group) for _, group in groups(handle)), set())
        if "conformations" in keys:
            return "spice"
        if "coordinates" in keys:
            return "ani1x"
    raise UserError(f"{path} is not laid out like SPICE, ANI-1x or Transition-1x; say --kind")
