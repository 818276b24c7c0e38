"""The elements by symbol and number."""

from __future__ import annotations

from dpdata.periodic_table import ELEMENTS

from deepmd_mft.errors import UserError

__all__ = ["ELEMENTS", "atomic_number"]

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
