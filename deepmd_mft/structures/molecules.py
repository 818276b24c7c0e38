"""Molecules by their SMILES, whatever the spelling."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["canonical_smiles", "plain_molecule"]

# Fewer SMILES than this are not worth a second process.
_PIECE = 2_000


def plain_molecule(smiles: str) -> Any:
    """Return RDKit's molecule without isotopes and atom maps; None if it cannot read it.

    Needs RDKit.
    """
    from rdkit import Chem, rdBase  # noqa: PLC0415

    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(smiles)
        if molecule is None:
            return None
        marked = [a for a in molecule.GetAtoms() if a.GetIsotope() or a.GetAtomMapNum()]
        if not marked:
            return molecule
        for atom in marked:
            atom.SetIsotope(0)
            atom.SetAtomMapNum(0)
        # Read anew: deuterium becomes an implicit hydrogen, its stereo centre is none any more.
        return Chem.MolFromSmiles(Chem.MolToSmiles(molecule))


def canonical_smiles(
    smiles: Sequence[str], *, jobs: int = 1, tell: Callable[[str], None] = lambda _: None
) -> list[str]:
    """Return one spelling per molecule: canonical, without isotopes and atom maps.

    Parameters
    ----------
    smiles : sequence of str
        One per row; empty where there is none.
    jobs : int
        Processes.
    tell : callable
        Takes a remark: that RDKit is missing, or that it cannot read some of the SMILES.
        Those stay as they are.

    Returns
    -------
    list of str
        One per row.
    """
    distinct = sorted({one for one in smiles if one})
    if not distinct:
        return list(smiles)
    try:
        import rdkit  # noqa: F401, PLC0415
    except ImportError:
        tell(
            "RDKit is not installed, so SMILES are compared letter by letter: two spellings of "
            "a molecule are found only by their structures (pip install rdkit)"
        )
        return list(smiles)
    if jobs > 1 and len(distinct) > _PIECE:
        with ProcessPoolExecutor(max_workers=jobs) as pool:
            found = dict(zip(distinct, pool.map(_spell, distinct, chunksize=_PIECE), strict=True))
    else:
        found = dict(zip(distinct, map(_spell, distinct), strict=True))
    unread = [one for one, spelled in found.items() if spelled is None]
    if unread:
        tell(
            f"RDKit cannot read {len(unread):,} of {len(distinct):,} SMILES (first: "
            f"{unread[0]!r}); they are compared letter by letter"
        )
    return [found.get(one) or one for one in smiles]


def _spell(smiles: str) -> str | None:
    from rdkit import Chem  # noqa: PLC0415

    molecule = plain_molecule(smiles)
    return None if molecule is None else Chem.MolToSmiles(molecule)
