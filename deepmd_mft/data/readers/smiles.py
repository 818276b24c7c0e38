"""Geometries from SMILES: one conformer per molecule, the same every time."""

from __future__ import annotations

import signal
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from deepmd_mft.data.electrons import RADICAL
from deepmd_mft.data.frames import Frames, Skipped
from deepmd_mft.errors import missing_package

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Molecule", "from_smiles", "geometry", "require_rdkit"]

_SEED = 42
# RDKit's default of 200 leaves four in ten drug-like molecules unrelaxed.
_ITERATIONS = 2000
# Molecules handed to each process ahead of the one that is written.
_AHEAD = 32

# Distances over the sum of the covalent radii: bonds, and the closest that atoms without a
# bond may come (bicyclo[1.1.1]pentane, the tightest cage there is, has 1.2).
_BOND = (0.7, 1.35)
_CONTACT = 1.1


@dataclass
class Molecule:
    """What a table says about one molecule."""

    name: str
    smiles: str
    labels: dict[str, np.ndarray]
    group: str = ""


@dataclass
class Geometry:
    """Atomic numbers, positions in Angstrom (``nloc x 3``), and what is to be said of them."""

    numbers: np.ndarray
    coords: np.ndarray
    remarks: list[str]


def require_rdkit() -> None:
    """Say what to install if RDKit is missing."""
    try:
        import rdkit  # noqa: F401, PLC0415
    except ImportError as error:
        raise missing_package("SMILES need RDKit", "data") from error


def from_smiles(molecules: Iterable[Molecule], jobs: int = 1) -> Iterator[Frames | Skipped]:
    """Yield molecules in their order, whatever the number of processes.

    Parameters
    ----------
    molecules : iterable of Molecule
        What to embed.
    jobs : int
        Processes. Each molecule has the same seed, so they do not change the result.
    """
    for molecule, made in _made(molecules, jobs):
        if isinstance(made, str):
            yield Skipped(molecule.name, made)
        else:
            yield Frames(
                numbers=made.numbers,
                coords=made.coords[None],
                labels=molecule.labels,
                ids=[molecule.name],
                smiles=molecule.smiles,
                group=molecule.group,
                remarks=made.remarks,
            )


def _made(molecules: Iterable[Molecule], jobs: int) -> Iterator[tuple[Molecule, Geometry | str]]:
    if jobs <= 1:
        for molecule in molecules:
            yield molecule, geometry(molecule.smiles)
        return
    # A Ctrl-C is the parent's to answer.
    ignore = (signal.SIGINT, signal.SIG_IGN)
    pool = ProcessPoolExecutor(jobs, initializer=signal.signal, initargs=ignore)
    try:
        waiting: deque[tuple[Molecule, Any]] = deque()
        for molecule in molecules:
            waiting.append((molecule, pool.submit(geometry, molecule.smiles)))
            if len(waiting) > _AHEAD * jobs:
                first, future = waiting.popleft()
                yield first, future.result()
        for molecule, future in waiting:
            yield molecule, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def geometry(smiles: str) -> Geometry | str:
    """Make a geometry, or say why there is none.

    RDKit's ETKDGv3 with a fixed seed, then MMFF94, or UFF where it has no parameters.
    """
    from rdkit import Chem, RDLogger  # noqa: PLC0415

    RDLogger.DisableLog("rdApp.*")
    if not smiles:
        return "RDKit cannot parse the SMILES: it is empty"
    _, *more = smiles.split(maxsplit=1)
    if more and not more[0].startswith("|"):  # |...| is ChemAxon's extension
        return "white space in the SMILES, behind which RDKit reads nothing"
    try:
        molecule = Chem.MolFromSmiles(smiles)
        if molecule is None or not molecule.GetNumAtoms():
            return "RDKit cannot parse the SMILES"
        reason = _unsuitable(molecule)
        return reason or _embedded(Chem.AddHs(molecule))
    except (RuntimeError, ValueError) as error:
        return f"RDKit fails on the SMILES ({type(error).__name__})"


def _unsuitable(molecule: Any) -> str:
    from rdkit import Chem  # noqa: PLC0415

    if any(atom.GetAtomicNum() == 0 for atom in molecule.GetAtoms()):
        return "dummy atoms (X, *, atomic number 0)"
    if len(Chem.GetMolFrags(molecule)) > 1:
        return "several fragments: how they lie to each other is not made up"
    return ""


def _embedded(molecule: Any) -> Geometry | str:
    """Embed and relax a molecule with its hydrogens."""
    from rdkit.Chem import AllChem  # noqa: PLC0415

    parameters = AllChem.ETKDGv3()
    parameters.randomSeed = _SEED
    if AllChem.EmbedMolecule(molecule, parameters) != 0:
        return "RDKit finds no geometry for the SMILES"
    remarks = []
    atoms = list(molecule.GetAtoms())
    if any(atom.GetNumRadicalElectrons() for atom in atoms):
        remarks.append(RADICAL)
    if any(atom.GetIsotope() for atom in atoms):
        remarks.append("isotopes in the SMILES (no matter to energies and geometries)")
    if AllChem.MMFFHasAllMoleculeParams(molecule):
        left = AllChem.MMFFOptimizeMolecule(molecule, maxIters=_ITERATIONS)
    elif AllChem.UFFHasAllMoleculeParams(molecule):
        left = AllChem.UFFOptimizeMolecule(molecule, maxIters=_ITERATIONS)
    else:
        left = -1
    if left > 0:
        remarks.append("relaxation by the force field did not converge")
    elif left < 0:
        remarks.append("no force field has parameters: embedded, not relaxed")
    coords = np.array(molecule.GetConformer().GetPositions())
    if not _sound(molecule, coords):
        return "no sound geometry: bonds or contacts of impossible length"
    return Geometry(np.array([atom.GetAtomicNum() for atom in atoms]), coords, remarks)


def _sound(molecule: Any, coords: np.ndarray) -> bool:
    """Whether bonds are as long as bonds are, and other atoms farther apart."""
    from rdkit import Chem  # noqa: PLC0415

    table = Chem.GetPeriodicTable()
    radii = np.array([table.GetRcovalent(atom.GetAtomicNum()) for atom in molecule.GetAtoms()])
    apart = np.linalg.norm(coords[:, None] - coords[None], axis=-1)
    upper = np.triu_indices(len(radii), k=1)
    ratio = (apart / (radii[:, None] + radii[None]))[upper]
    bonded = Chem.GetAdjacencyMatrix(molecule)[upper].astype(bool)
    bonds_fit = ((ratio > _BOND[0]) & (ratio < _BOND[1]))[bonded].all()
    return bool(np.isfinite(coords).all() and bonds_fit and (ratio[~bonded] > _CONTACT).all())
