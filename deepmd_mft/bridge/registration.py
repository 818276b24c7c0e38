"""Registering types when deepmd-kit loads what they extend.

deepmd-kit imports a plugin before its own model and loss modules, which take seconds to load.
Registering needs those modules. A plugin that imported them would slow every ``import deepmd.pt``
that never builds a model, so each registration waits for the deepmd module it extends.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType


class _AfterImport(importlib.abc.MetaPathFinder):
    """Call a function once, right after one module has been imported."""

    def __init__(self, module: str, action: Callable[[], object]) -> None:
        self.module = module
        self.action = action

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002  (the protocol's signature)
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """Find the awaited module with the other finders and wrap its loader."""
        if fullname != self.module:
            return None
        sys.meta_path.remove(self)  # asked once; the search below must not come back here
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            self.action()

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def after_import(module: str, action: Callable[[], object]) -> None:
    """Call ``action`` as soon as ``module`` is imported, or now if it already is.

    Parameters
    ----------
    module : str
        The full name of a module.
    action : callable
        Called once, without arguments.
    """
    if module in sys.modules:
        action()
    else:
        sys.meta_path.insert(0, _AfterImport(module, action))


def native_arguments(plugin: str, name: str) -> list[Any]:
    """Return deepmd-kit's own dargs arguments of a fitting net or loss.

    Parameters
    ----------
    plugin : str
        ``"fitting"`` or ``"loss"``.
    name : str
        The registered type, for instance ``"property"`` or ``"ener"``.

    Returns
    -------
    list of dargs.Argument
        The sub-fields, with their names, defaults and doc strings.
    """
    argcheck = importlib.import_module("deepmd.utils.argcheck")
    return list(getattr(argcheck, f"{plugin}_args_plugin").get_argument(name).sub_fields.values())
