"""LMDB files that may be cut off."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    import lmdb

__all__ = ["check_complete"]


def check_complete(environment: lmdb.Environment, file: Path) -> None:
    """Raise if an open LMDB is shorter than it says.

    LMDB maps its file, and reading a mapped file beyond its end kills the process (SIGBUS).

    Parameters
    ----------
    environment : lmdb.Environment
    file : Path
        The file itself, ``data.mdb``.
    """
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    size = file.stat().st_size
    if size < needed:
        raise UserError(
            f"{file} is cut off ({size:,} of {needed:,} bytes are there), as an interrupted "
            "download, copy or conversion leaves it: get it again"
        )
