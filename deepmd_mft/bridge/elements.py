"""deepmd-kit's order of elements."""

from __future__ import annotations

import functools
import importlib
import sys
from types import ModuleType
from typing import Any


def sort_elements_by_table() -> None:
    """Let deepmd-kit sort element symbols by a table that it has.

    deepmd-kit 3.2.0 asks mendeleev's database for the atomic number of every symbol and branch
    before a training: 0.3 s each on a slow core, 16 s for 58 elements. The order is the same; what
    is no symbol of the table is still asked for. So mendeleev, most of a second
    to import (pandas, sqlalchemy), is imported only then.
    """
    econf = _import_table()
    if hasattr(econf.sort_element_type, "__wrapped__"):
        return
    numbers = {symbol: n for n, symbol in enumerate(econf.electronic_configuration_embedding, 1)}
    sort_by_database = econf.sort_element_type

    @functools.wraps(sort_by_database)
    def sort_element_type(elements: list[str]) -> list[str]:
        if all(symbol in numbers for symbol in elements):
            return sorted(elements, key=numbers.__getitem__)
        return list(sort_by_database(elements))

    econf.sort_element_type = sort_element_type


class _Mendeleev(ModuleType):
    """Stands for mendeleev while deepmd-kit's table is imported, which takes ``element`` of it."""

    @staticmethod
    def element(symbol: Any) -> Any:
        """Ask the database."""
        return importlib.import_module("mendeleev").element(symbol)


def _import_table() -> Any:
    """Import deepmd-kit's table without its database."""
    name = "deepmd.utils.econf_embd"
    if name in sys.modules or "mendeleev" in sys.modules:
        return importlib.import_module(name)
    sys.modules["mendeleev"] = _Mendeleev("mendeleev")
    try:
        return importlib.import_module(name)
    except ImportError:  # another release takes more of it
        sys.modules.pop("mendeleev")
        return importlib.import_module(name)
    finally:
        if isinstance(sys.modules.get("mendeleev"), _Mendeleev):
            del sys.modules["mendeleev"]
