"""Write a folder whole or not at all."""

from __future__ import annotations

import errno
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

import lmdb

from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["staged_folder"]

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def staged_folder(out: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary folder beside ``out`` that becomes ``out`` if all goes well.

    After an error or an interrupt the temporary folder is removed; if the process is
    killed it stays behind under a name that starts with a dot and ends with ``.partial``,
    and the next attempt removes it.

    Parameters
    ----------
    out : Path
        The folder to make.
    overwrite : bool
        Replace an existing ``out`` (only once the new one is complete).

    Raises
    ------
    UserError
        If ``out`` exists, cannot be written, or the disk is full.
    """
    if out.exists() and not overwrite:
        raise UserError(f"{out} exists; choose another name or give --overwrite")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file, not a folder; choose another name")
    partial = out.parent / f".{out.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"no permission to write {out} ({error.strerror})") from error
    try:
        yield partial
        if out.exists():
            old = out.parent / f".{out.name}.old"
            shutil.rmtree(old, ignore_errors=True)
            out.rename(old)
            partial.rename(out)
            shutil.rmtree(old)
        else:
            partial.rename(out)
    except OSError as error:
        if error.errno in _FULL or _is_short_write(error):
            raise UserError(f"the disk is full while writing {out}; nothing was kept") from error
        if isinstance(error, PermissionError):
            raise UserError(f"no permission to write {error.filename or out}") from error
        raise
    except (lmdb.MapFullError, lmdb.DiskError) as error:
        raise UserError(f"the disk is full while writing {out}; nothing was kept") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _is_short_write(error: OSError) -> bool:
    """Recognise how ``numpy.save`` says that the disk is full: without an error number."""
    return error.errno is None and "requested and" in str(error)
