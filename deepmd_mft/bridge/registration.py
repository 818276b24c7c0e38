"""deepmd-kit's own options, which the registered types take over."""

from __future__ import annotations

import importlib
from typing import Any


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
