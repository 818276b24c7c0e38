"""OOD by chemistry: unseen scaffolds, unseen elements, larger structures."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from deepmd_mft.errors import UserError
from deepmd_mft.splits.fold import Fold, amount, carve
from deepmd_mft.structures.elements import atomic_number

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["element_out", "scaffold", "scaffolds", "size_out"]


def scaffolds(smiles: Sequence[str]) -> list[str]:
    """Bemis-Murcko scaffold of every molecule; the empty string for chains.

    Parameters
    ----------
    smiles : sequence of str
        One a row.
    """
    try:
        from rdkit import Chem, RDLogger  # noqa: PLC0415
        from rdkit.Chem.Scaffolds import MurckoScaffold  # noqa: PLC0415
    except ImportError as error:
        raise UserError("scaffolds need RDKit: pip install 'deepmd-mft[data]'") from error
    RDLogger.DisableLog("rdApp.*")
    found = {}
    for one in set(smiles):
        molecule = Chem.MolFromSmiles(one) if one else None
        if molecule is None:
            raise UserError(
                f"scaffold: {one!r} in row {list(smiles).index(one)} is no SMILES that RDKit "
                "can read"
            )
        found[one] = MurckoScaffold.MurckoScaffoldSmiles(mol=molecule)
    return [found[one] for one in smiles]


def scaffold(
    smiles: Sequence[str],
    groups: np.ndarray,
    *,
    n_ood: float = 0.1,
    id_test: float = 0.05,
    val: float = 0.05,
    seed: int = 0,
) -> list[Fold]:
    """Rare scaffolds out: whole scaffolds, the rarest first, until ``n_ood`` is reached.

    Parameters
    ----------
    smiles : sequence of str
        SMILES of every row.
    groups : np.ndarray
        Group of every row, shape ``nrows``.
    n_ood, id_test, val : float
        Counts or fractions.
    seed : int
        Seed of the draws.
    """
    kinds = scaffolds(smiles)
    sizes = Counter(kinds)
    wanted = amount(n_ood, len(kinds), "--ood")
    order = sorted(sizes, key=lambda kind: (sizes[kind], kind))
    total, chosen = 0, set()
    for kind in order:
        if total >= wanted:
            break
        chosen.add(kind)
        total += sizes[kind]
    ood = np.flatnonzero([kind in chosen for kind in kinds])
    rng = np.random.default_rng(seed)
    return [carve("", ood, groups, id_test=id_test, val=val, rng=rng)]


def element_out(
    numbers: Iterable[np.ndarray],
    groups: np.ndarray,
    elements: Sequence[str],
    *,
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
    elements : sequence of str
        Element symbols.
    id_test, val : float
        Counts or fractions of the rest.
    seed : int
        Seed of the draws.
    """
    out = [atomic_number(symbol) for symbol in elements]
    ood = np.flatnonzero([bool(np.isin(z, out).any()) for z in numbers])
    if not len(ood):
        raise UserError(f"no structure contains {' or '.join(elements)}")
    rng = np.random.default_rng(seed)
    return [carve("", ood, groups, id_test=id_test, val=val, rng=rng)]


def size_out(
    natoms: np.ndarray,
    groups: np.ndarray,
    *,
    larger_than: int | None = None,
    n_ood: float = 0.1,
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
        least ``n_ood`` are out.
    n_ood, id_test, val : float
        Counts or fractions.
    seed : int
        Seed of the draws.
    """
    if larger_than is None:
        wanted = amount(n_ood, len(natoms), "--ood")
        larger_than = int(np.sort(natoms)[-wanted]) - 1 if wanted else int(natoms.max())
    ood = np.flatnonzero(natoms > larger_than)
    if not len(ood):
        raise UserError(f"no structure has more than {larger_than} atoms")
    rng = np.random.default_rng(seed)
    return [carve("", ood, groups, id_test=id_test, val=val, rng=rng)]
