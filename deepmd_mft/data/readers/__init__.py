"""Readers, one file a source; :func:`open_source` finds the right one."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from deepmd_mft.data.frames import Source

__all__ = ["READERS", "PropertySpec", "ReadOptions", "open_source"]

READERS = {
    "qm9": "the original dsgdb9nsd tar of xyz files, or qm9pack's CSV files (or their folder)",
    "matbench": "MatBench JSON or JSON.gz",
    "spice": "SPICE 1 and 2 HDF5",
    "ani1x": "ANI-1x HDF5",
    "transition1x": "Transition-1x HDF5",
    "aselmdb": "ASE-LMDB of OMat24, OC20 and others (a file, or a folder of them)",
    "npz": "npz archives of R, F, E, z (MD17, rMD17, QM7-X)",
    "table": "CSV or Parquet with a column of structure files or of SMILES",
    "ase": "anything ase reads: extxyz, ASE db, cif, POSCAR, xyz, ... (or a folder of them)",
}


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
        return cls(name, key.strip() or name, unit.strip())


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
    structure_column, smiles_column : str, optional
        Columns of a table.
    level : str, optional
        Level of theory, where a file holds several.
    exclude : Path, optional
        QM9: list of molecules to leave out (``uncharacterized.txt``).
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
    structure_column: str | None = None
    smiles_column: str | None = None
    level: str | None = None
    exclude: Path | None = None

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
            chosen.append(PropertySpec(spec.name, spec.key, spec.unit or known[spec.key]))
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
    kind = guess(path) if kind == "auto" else kind
    reader = {"ase": "ase_file", "transition1x": "ani1x"}.get(kind, kind)
    module = importlib.import_module(f"deepmd_mft.data.readers.{reader}")
    function = getattr(module, f"read_{kind}")
    return function(path, options or ReadOptions())


def guess(path: Path) -> str:
    """Tell the kind of a source by its name and first bytes."""
    name = path.name.lower()
    if path.is_dir():
        if any(path.glob("*.aselmdb")):
            return "aselmdb"
        return "qm9" if any(path.glob("qm9_part*.csv")) else "ase"
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


def _guess_hdf5(path: Path) -> str:
    from deepmd_mft.data.readers.hdf5 import open_hdf5  # noqa: PLC0415

    with open_hdf5(path) as handle:
        if "data" in handle or "train" in handle:
            return "transition1x"
        first = next(iter(handle.values()), None)
        if first is not None and "conformations" in first:
            return "spice"
        if first is not None and "coordinates" in first:
            return "ani1x"
    raise UserError(f"{path} is not laid out like SPICE, ANI-1x or Transition-1x; say --kind")
