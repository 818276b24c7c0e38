"""OOD by chemistry: unseen scaffolds, unseen elements, larger structures."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from deepmd_mft.errors import UserError, missing_package
from deepmd_mft.splits.fold import Fold, amount, carve, generator, members, whole
from deepmd_mft.structures.duplicates import joined_groups
from deepmd_mft.structures.elements import atomic_number
from deepmd_mft.structures.molecules import plain_molecule

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["element_out", "scaffold", "scaffolds", "size_out"]


def scaffolds(smiles: Sequence[str]) -> list[str]:
    """Bemis-Murcko scaffold of every molecule; the empty string for chains.

    Parameters
    ----------
    smiles : sequence of str
        One per row.
    """
    try:
        from rdkit.Chem.Scaffolds import MurckoScaffold  # noqa: PLC0415
    except ImportError as error:
        raise missing_package("scaffolds need RDKit", "data") from error
    found: dict[str, str] = {}
    for row, one in enumerate(smiles):
        if one in found:
            continue
        if not one:
            raise UserError(f"scaffold: row {row} has no SMILES; convert with --smiles-column")
        molecule = plain_molecule(one)
        if molecule is None:
            raise UserError(f"scaffold: {one!r} in row {row} is no SMILES that RDKit can read")
        found[one] = MurckoScaffold.MurckoScaffoldSmiles(mol=molecule)
    return [found[one] for one in smiles]


def scaffold(
    smiles: Sequence[str],
    groups: np.ndarray,
    *,
    ood: float = 0.1,
    id_test: float = 0.05,
    val: float = 0.05,
    seed: int = 0,
) -> list[Fold]:
    """Rare scaffolds out: whole scaffolds, the rarest first, until ``ood`` is reached.

    Scaffolds that a group joins (two molecules of one reaction) count as one.

    Parameters
    ----------
    smiles : sequence of str
        SMILES of every row.
    groups : np.ndarray
        Group of every row, shape ``nrows``.
    ood, id_test, val : float
        Counts or fractions.
    seed : int
        Seed of the draws.
    """
    kinds = scaffolds(smiles)
    # Rows of one group are one thing: their scaffolds leave together.
    joined = joined_groups(np.unique(kinds, return_inverse=True)[1], groups)
    sizes = Counter(joined.tolist())
    names: dict[int, str] = {}
    for number, kind in zip(joined.tolist(), kinds, strict=True):
        names[number] = min(kind, names.get(number, kind))
    wanted = amount(ood, len(kinds), "--ood")
    total, chosen = 0, []
    for number in sorted(sizes, key=lambda number: (sizes[number], names[number])):
        if total >= wanted:
            break
        chosen.append(number)
        total += sizes[number]
    rows = members(joined, np.array(chosen, dtype=np.int64))
    return [carve("", rows, groups, id_test=id_test, val=val, rng=generator(seed))]


def element_out(
    numbers: Iterable[np.ndarray],
    groups: np.ndarray,
    *,
    elements: str,
    id_test: float = 0.05,
    val: float = 0.05,
    seed: int = 0,
) -> list[Fold]:
    """Every structure with one of ``elements`` out.

    Parameters
    ----------
    numbers : iterable of np.ndarray
        Atomic numbers of every row.
    groups : np.ndarray
        Group of every row, shape ``nrows``.
    elements : str
        Element symbols, separated by commas.
    id_test, val : float
        Counts or fractions of the rest.
    seed : int
        Seed of the draws.
    """
    symbols = [symbol.strip() for symbol in elements.split(",") if symbol.strip()]
    try:
        out = [atomic_number(symbol) for symbol in symbols]
    except UserError as error:
        raise UserError(f"--elements {elements}: {error}") from None
    rows = np.flatnonzero([bool(np.isin(z, out).any()) for z in numbers])
    if not len(rows):
        raise UserError(f"--elements: no structure contains {' or '.join(symbols) or 'nothing'}")
    return [carve("", rows, groups, id_test=id_test, val=val, rng=generator(seed))]


def size_out(
    natoms: np.ndarray,
    groups: np.ndarray,
    *,
    larger_than: int | None = None,
    ood: float = 0.1,
    id_test: float = 0.05,
    val: float = 0.05,
    seed: int = 0,
) -> list[Fold]:
    """Large structures out.

    Parameters
    ----------
    natoms : np.ndarray
        Number of atoms of every row, shape ``nrows``.
    groups : np.ndarray
        Group of every row, shape ``nrows``.
    larger_than : int, optional
        OOD are all structures with more atoms; by default the size is chosen so that at
        least ``ood`` are out.
    ood, id_test, val : float
        Counts or fractions.
    seed : int
        Seed of the draws.
    """
    if larger_than is None:
        wanted = amount(ood, len(natoms), "--ood")
        larger_than = int(np.sort(natoms)[-wanted]) - 1 if wanted else int(natoms.max())
    rows = np.flatnonzero(natoms > whole(larger_than, 0, "--larger-than"))
    if not len(rows):
        raise UserError(f"no structure has more than {larger_than} atoms")
    return [carve("", rows, groups, id_test=id_test, val=val, rng=generator(seed))]
