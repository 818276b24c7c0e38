"""The command line of ``dp --pt``."""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

#: How deepmd-kit's errors about one frame of a user's LMDB begin; they name field, frame and file.
ABOUT_LMDB = ("Required LMDB field", "LMDB field")


def check_before_commands(check: Callable[[argparse.Namespace], None]) -> None:
    """Call ``check`` with the parsed command line before ``dp --pt`` acts on it.

    deepmd-kit has no hook between reading the input and training. ``UserError``, whether from
    ``check`` or later from a model or loss of this package, ends the command with its message
    and status 1, without a traceback; so do deepmd-kit's own errors about a frame of an LMDB.

    Parameters
    ----------
    check : callable
        Takes the ``argparse.Namespace`` of ``dp``.
    """
    from deepmd_mft.errors import UserError  # noqa: PLC0415

    entrypoints: Any = importlib.import_module("deepmd.pt.entrypoints.main")
    deepmd_main = entrypoints.main

    @functools.wraps(deepmd_main)
    def main(args: list[str] | argparse.Namespace | None = None) -> None:
        try:
            if args is not None and not isinstance(args, list):
                check(args)
            deepmd_main(args)
        except UserError as error:
            raise SystemExit(f"deepmd_mft: {error}") from None
        except (RuntimeError, ValueError) as error:
            if not str(error).startswith(ABOUT_LMDB):
                raise
            raise SystemExit(
                f"{error} Mend the frame or remove it; a property's label may be missing with "
                "missing_labels: mask in its loss"
            ) from None

    entrypoints.main = main
