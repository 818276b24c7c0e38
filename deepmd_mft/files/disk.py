"""What a disk can refuse, in one message for every writer."""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING

from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["disk_errors", "is_full"]

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}
#: In the messages of torch.save when a file could not be written; it has no error number either.
_TORCH = ("unexpected pos", "PytorchStreamWriter", "iostream error")
#: How the messages of LMDB begin when it was writing.
_WRITING = ("mdb_txn_commit", "mdb_put", "mdb_env_sync")


def is_full(error: BaseException) -> bool:
    """Recognise a full disk, an exhausted quota and a file that may not grow."""
    if not isinstance(error, OSError):
        return False
    # numpy.save tells a short write without an error number.
    return error.errno in _FULL or (error.errno is None and "requested and" in str(error))


@contextmanager
def disk_errors(out: Path) -> Iterator[None]:
    """Turn what the disk refuses while ``out`` is written into a message.

    Other errors that are about other files (an input that is damaged) pass.

    Raises
    ------
    UserError
        If the disk is full, there is no permission, or the output cannot be written.
    """
    try:
        yield
    except Exception as error:
        reason = _reason(error, out)
        if reason is None:
            raise
        raise UserError(f"{reason}; {out} is as it was") from error


def _reason(error: Exception, out: Path) -> str | None:
    import lmdb  # noqa: PLC0415 - a writer of LMDB has imported it before

    if is_full(error) or isinstance(error, (lmdb.MapFullError, lmdb.DiskError)):
        return f"the disk is full while writing {out}"
    if isinstance(error, RuntimeError) and any(words in str(error) for words in _TORCH):
        return f"torch cannot write {out} ({str(error).splitlines()[0]}); is the disk full?"
    writing = (*_WRITING, f"{out.parent}/.{out.name}.")
    if isinstance(error, lmdb.Error) and any(words in str(error) for words in writing):
        # LMDB keeps the system's reason to itself.
        return f"LMDB cannot write {out} ({error}); is the disk full?"
    if isinstance(error, PermissionError) and not _is_beside(error, out):
        return f"no permission for {error.filename}"
    if isinstance(error, OSError) and _is_beside(error, out):
        if error.errno in _FORBIDDEN:
            return f"no permission to write {out} ({error.strerror})"
        return f"{out} cannot be written ({error.strerror or error})"
    return None


def _is_beside(error: OSError, out: Path) -> bool:
    """Tell whether the error is about ``out``, its folder or a temporary file beside it."""
    if error.filename is None:
        return False
    parents = (out.parent, *out.parent.parents)
    name = str(error.filename)
    return name.startswith(str(out.parent / f".{out.name}.")) or name in map(str, (out, *parents))
