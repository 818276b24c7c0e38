"""The elements by symbol and number."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["ELEMENTS", "atomic_number", "formula", "numbers_of_types", "symbol"]

# By atomic number. Not dpdata's list, because it takes long to import and every training needs it.
_SYMBOLS = """
H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar
K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr
Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe
Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu
Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn
Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr
Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og
"""
ELEMENTS = _SYMBOLS.split()
_NUMBERS = {symbol: z for z, symbol in enumerate(ELEMENTS, start=1)}


def atomic_number(symbol: str) -> int:
    """Atomic number of an element symbol.

    Raises
    ------
    UserError
        For anything that is not one of the 118 elements.
    """
    try:
        return _NUMBERS[symbol]
    except KeyError:
        raise UserError(f"{symbol!r} is not a chemical element") from None


def symbol(number: int) -> str:
    """Symbol of an atomic number.

    Raises
    ------
    UserError
        For a dummy atom (0) and anything else outside 1 to 118.
    """
    if not 1 <= number <= len(ELEMENTS):
        raise UserError(f"{number} is not the atomic number of an element (1 to {len(ELEMENTS)})")
    return str(ELEMENTS[number - 1])


def numbers_of_types(type_map: Sequence[str]) -> np.ndarray:
    """Atomic numbers of the types of a type map.

    Parameters
    ----------
    type_map : sequence of str
        Names of the types.

    Returns
    -------
    np.ndarray of int
        Shape ``ntypes``; 0 for a name that is no element.
    """
    return np.array([_NUMBERS.get(name, 0) for name in type_map], dtype=np.int64)


def formula(numbers: Iterable[int]) -> str:
    """Return the formula of a structure, C and H first, then by name: ``C2H6O``."""
    counts = Counter(symbol(int(z)) for z in numbers)
    order = sorted(counts, key=lambda e: ({"C": 0, "H": 1}.get(e, 2), e))
    return "".join(f"{e}{counts[e] if counts[e] > 1 else ''}" for e in order)
