"""One process per output, and its temporary folder."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import re
import shutil
import socket
import sys
import tempfile
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from deepmd_mft.errors import UserError
from deepmd_mft.files.disk import disk_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["locked", "make_temporary", "remove_dead", "workspace"]

log = logging.getLogger(__name__)

_TAKEN = {errno.EACCES, errno.EAGAIN}


@contextmanager
def workspace(out: Path) -> Iterator[Path]:
    """Hold the output ``out`` for this process, and give a temporary folder beside it.

    The folder is removed at the end, whatever happens. One of a process that was killed is
    removed by the next process with the same output, which says so. A folder called ``old``
    in it is put back to ``out`` as long as one called ``new`` lies beside it: the process was
    stopped while it replaced one by the other.

    Parameters
    ----------
    out : Path
        The file or folder that will be written.

    Raises
    ------
    UserError
        If another process writes it, or nothing can be written there.
    """
    with disk_errors(out), _parents(out), locked(out) as alone:
        for left in _temporary(out) if alone else ():
            _settle(left, out)
            log.warning("removed %s, which a killed process had left", left)
        try:
            yield make_temporary(out)
        except KeyboardInterrupt as stop:
            stop.args = (f"{out} was not written, and its unfinished files are removed",)
            raise
        finally:
            for folder in _temporary(out, os.getpid()):  # also if a signal came while it was made
                _settle(folder, out)


def _prefix(out: Path) -> str:
    """Return how the temporary folders of this machine for ``out`` begin."""
    return f".{out.name}.{socket.gethostname()}."


def make_temporary(out: Path) -> Path:
    """Make a temporary folder beside ``out`` whose name says which process made it."""
    return Path(tempfile.mkdtemp(".partial", f"{_prefix(out)}{os.getpid()}.", out.parent))


def remove_dead(out: Path) -> None:
    """Remove what processes that no longer run left of an output that is not locked."""
    for folder in _temporary(out):
        if not _is_running(int(folder.name.split(".")[-3])):
            _settle(folder, out)
            log.warning("removed %s, which a killed process had left", folder)


def _temporary(out: Path, process: int | str = r"\d+") -> list[Path]:
    """Find the temporary folders for ``out``, of one process or of all on this machine."""
    name = re.compile(rf"{re.escape(_prefix(out))}{process}\.[a-z0-9_]{{8}}\.partial")
    return [folder for folder in out.parent.iterdir() if name.fullmatch(folder.name)]


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True  # somebody else's
    return True


def _settle(folder: Path, out: Path) -> None:
    """Remove a temporary folder; put ``out`` back if it was moved there but not replaced."""
    old = folder / "old"
    if old.exists() and (folder / "new").exists():
        try:
            old.rename(out)
        except OSError as error:
            raise UserError(
                f"{out} was made by somebody else meanwhile; what was there before is in {old}"
            ) from error
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        log.warning("%s cannot be removed; remove it by hand", folder)


@contextmanager
def _parents(out: Path) -> Iterator[None]:
    """Make the folders above ``out``, and remove those that stay empty."""
    missing = [folder for folder in out.parents if not folder.exists()]
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):  # the first that holds something stays, and all above it
            for folder in missing:
                folder.rmdir()


@contextmanager
def locked(out: Path) -> Iterator[bool]:
    """Hold the output ``out`` for this process.

    A file beside it says who holds it; the lock itself ends with the process, however it ends.

    Yields
    ------
    bool
        Whether the file system knows locks. Without them the process whose output is complete
        first wins, and the other finds it in the way.

    Raises
    ------
    UserError
        If another process holds it.
    """
    path = out.with_name(f".{out.name}.dp-mft.lock")
    with disk_errors(out):
        handle = _acquire(path, out)
    if handle is None:
        yield False
        return
    holder = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "command": " ".join(["dp-mft", *sys.argv[1:2]]),
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
    }
    try:
        os.ftruncate(handle, 0)
        os.write(handle, json.dumps(holder).encode())
        yield True
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def _acquire(path: Path, out: Path) -> int | None:
    """Return the open and locked file, or None where the file system has no locks."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(handle, path):
                return handle
        except OSError as error:
            taken = error.errno in _TAKEN
            holder = os.read(handle, 1000) if taken else b""
            os.close(handle)
            if taken:
                raise UserError(f"{out} is being written by {_who(holder)}") from None
            path.unlink(missing_ok=True)
            return None
        os.close(handle)  # the process that held it has just removed it: again, with a new file


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False


def _who(holder: bytes) -> str:
    try:
        told = json.loads(holder)
        who = f"process {told['pid']} on {told['host']} ({told['command']}, since {told['since']})"
    except (ValueError, KeyError, TypeError):
        who = "another process"
    return f"{who}; wait for it, or choose another name"
