"""Elements are sorted as deepmd-kit sorts them, without its database."""

import inspect
import subprocess
import sys

import pytest
from deepmd.dpmodel.utils import stat
from deepmd.utils import econf_embd

from deepmd_mft.bridge.elements import sort_elements_by_table


@pytest.fixture
def upstream(monkeypatch):
    function = inspect.unwrap(econf_embd.sort_element_type)
    monkeypatch.setattr(econf_embd, "sort_element_type", function)
    return function


@pytest.mark.parametrize(
    "symbols",
    [
        ["Og", "Cl", "H", "Pb", "C", "Br", "Yb", "La", "Lu", "Hf"],
        ["O", "X", "H", "M1"],  # no elements: last, as they stand
        [],
    ],
)
def test_the_order_is_the_same(upstream, symbols):
    expected = upstream(symbols)
    sort_elements_by_table()
    assert econf_embd.sort_element_type(symbols) == expected


def test_every_element_has_its_number(upstream):
    sort_elements_by_table()
    table = list(econf_embd.electronic_configuration_embedding)
    assert econf_embd.sort_element_type(table[::-1]) == table
    assert [econf_embd.element(table[z - 1]).atomic_number for z in (1, 26, 118)] == [1, 26, 118]


def test_the_database_is_not_asked(upstream, monkeypatch):
    sort_elements_by_table()
    monkeypatch.setattr(econf_embd, "element", None)
    sample = [{"atype": [[3, 0, 1, -1]]}]
    assert stat.collect_observed_types(sample, ["O", "C", "H", "N"]) == ["C", "N", "O"]


def test_the_database_is_imported_when_it_is_asked():
    """In a process of its own, as here others have imported it."""
    code = """
import sys
from deepmd_mft.bridge.elements import sort_elements_by_table
sort_elements_by_table()
from deepmd.utils import econf_embd
assert econf_embd.sort_element_type(["O", "H"]) == ["H", "O"]
assert not {"mendeleev", "pandas", "sqlalchemy"} & sys.modules.keys()
assert econf_embd.element("Fe").atomic_number == 26
assert econf_embd.sort_element_type(["X", "O", "H"]) == ["H", "O", "X"]
import mendeleev
assert mendeleev.Fe.symbol == "Fe"
"""
    subprocess.run([sys.executable, "-c", code], check=True)
