"""Symbols and numbers of the elements."""

from __future__ import annotations

import dpdata.periodic_table
import pytest
from ase.data import chemical_symbols

from deepmd_mft.errors import UserError
from deepmd_mft.structures.elements import (
    ELEMENTS,
    atomic_number,
    formula,
    numbers_of_types,
    symbol,
)


def test_the_elements_are_those_of_dpdata_and_ase() -> None:
    assert list(dpdata.periodic_table.ELEMENTS) == ELEMENTS == chemical_symbols[1:]
    assert [atomic_number(symbol(z)) for z in range(1, 119)] == list(range(1, 119))


@pytest.mark.parametrize("number", [-1, 0, 119])
def test_no_other_number_is_an_element(number: int) -> None:
    with pytest.raises(UserError, match=f"{number} is not the atomic number"):
        symbol(number)
    with pytest.raises(UserError, match="'X' is not a chemical element"):
        atomic_number("X")


def test_formulas_and_types() -> None:
    assert formula([8, 1, 6, 1, 17]) == "CH2ClO"
    assert formula([17, 11]) == "ClNa"
    assert numbers_of_types(["O", "X", "H"]).tolist() == [8, 0, 1]
