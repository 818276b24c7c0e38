"""What can be said about charge and unpaired electrons without quantum chemistry."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deepmd_mft.data.frames import Frames

__all__ = ["CHARGED", "ODD", "RADICAL", "electron_remarks", "smiles_charge", "total_charge"]

CHARGED = "charged"
RADICAL = "radicals (unpaired electrons)"
ODD = "an odd number of electrons: radicals, or ions whose charge is not stated"

# A bracket atom's charge: +, ++, +2, - and so on, before its map number.
_BRACKET = re.compile(r"\[[^\[\]]*?(?P<charge>\++|-+|[+-]\d+)?(?::\d+)?\]")


def smiles_charge(smiles: str) -> int:
    """Total charge that a SMILES states, the sum over its bracket atoms.

    >>> smiles_charge("C[NH3+].[O-2]"), smiles_charge("[NH3+]CC(=O)[O-]")
    (-1, 0)
    """
    total = 0
    for match in _BRACKET.finditer(smiles):
        text = match["charge"]
        if text:
            size = int(text[1:]) if text[1:].isdigit() else len(text)
            total += size if text[0] == "+" else -size
    return total


def total_charge(frames: Frames) -> float | None:
    """Return the charge that the source states itself, or its SMILES; None if neither does."""
    if frames.charge is None and frames.smiles:
        return smiles_charge(frames.smiles)
    return frames.charge


def electron_remarks(frames: Frames) -> list[str]:
    """Return what a user should know: :data:`CHARGED`, :data:`RADICAL` or :data:`ODD`.

    Electrons of crystals are not counted.
    """
    charge = total_charge(frames)
    remarks = [CHARGED] if charge else []
    if frames.cells is None:
        electrons = int(frames.numbers.sum()) - (charge or 0)
        if round(electrons) % 2:
            remarks.append(ODD if charge is None else RADICAL)
    return remarks
