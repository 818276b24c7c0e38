"""Write a file or a folder whole or not at all.

Everything that this package writes goes through here: it takes shape in a temporary folder
beside the output and gets its name when it is complete.
"""

from __future__ import annotations

import shutil
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from deepmd_mft.errors import UserError
from deepmd_mft.files.disk import disk_errors
from deepmd_mft.files.lock import locked, make_temporary, remove_dead, workspace
from deepmd_mft.files.records import RECORDS, check_apart, check_replaceable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["atomic_file", "check_file", "check_folder", "staged_file", "staged_folder"]


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a temporary name of the same ending that becomes ``path`` if all goes well.

    For files of which several processes may write the same; what is there is replaced.

    Raises
    ------
    UserError
        If the file cannot be written.
    """
    with disk_errors(path):
        remove_dead(path)
        folder = make_temporary(path)
        try:
            yield folder / path.name
            (folder / path.name).replace(path)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def staged_file(
    out: Path, inputs: Iterable[Path] = (), *, overwrite: bool = False
) -> Iterator[Path]:
    """Give a temporary name of the same ending that becomes ``out`` if all goes well.

    Parameters
    ----------
    out : Path
        The file to make. It is held for this process while the block runs.
    inputs : iterable of Path
        What is read; never replaced.
    overwrite : bool
        Replace an existing file.

    Raises
    ------
    UserError
        If ``out`` exists, is held by another process or cannot be written.
    """
    out, inputs = _named(out), list(inputs)
    _check_name(out, overwrite=overwrite)
    with workspace(out) as folder:
        _check_file(out, inputs, overwrite=overwrite)
        partial = folder / out.name
        yield partial
        _check_file(out, inputs, overwrite=overwrite)  # it may have come meanwhile
        partial.replace(out)


@contextmanager
def staged_folder(
    out: Path, verb: str, inputs: Iterable[Path] = (), *, overwrite: bool = False
) -> Iterator[Path]:
    """Give a temporary folder that becomes ``out`` if all goes well.

    The last thing that the block does is to call
    :func:`~deepmd_mft.files.records.write_record`.

    Parameters
    ----------
    out : Path
        The folder to make. It is held for this process while the block runs.
    verb : str
        Who writes it, one of :data:`~deepmd_mft.files.records.RECORDS`.
    inputs : iterable of Path
        What is read; never replaced.
    overwrite : bool
        Replace an existing folder that the same verb wrote, once the new one is complete.

    Raises
    ------
    UserError
        If ``out`` exists and may not be replaced, is held by another process, or cannot be
        written.
    """
    out, inputs = _named(out), list(inputs)
    _check_name(out, overwrite=overwrite)
    with workspace(out) as folder:
        _check_folder(out, verb, inputs, overwrite=overwrite)
        new = folder / "new"
        new.mkdir()
        yield new
        if not (new / RECORDS[verb]).is_file():
            raise RuntimeError(f"dp-mft {verb} wrote no {RECORDS[verb]}")  # a bug of ours
        _check_folder(out, verb, inputs, overwrite=overwrite)  # it may have come meanwhile
        try:
            if out.exists():
                out.rename(folder / "old")
            new.rename(out)
        except OSError as error:
            raise UserError(
                f"{out} cannot be put in place ({error.strerror}); another process may have made "
                "it meanwhile, nothing of that is changed"
            ) from error


def check_file(out: Path, inputs: Iterable[Path] = (), *, overwrite: bool = False) -> None:
    """Raise if the file ``out`` may not be written; see :func:`staged_file`."""
    with _checking(_named(out), overwrite=overwrite) as place:
        _check_file(place, inputs, overwrite=overwrite)


def check_folder(
    out: Path, verb: str, inputs: Iterable[Path] = (), *, overwrite: bool = False
) -> None:
    """Raise if the folder ``out`` may not be written; see :func:`staged_folder`."""
    with _checking(_named(out), overwrite=overwrite) as place:
        _check_folder(place, verb, inputs, overwrite=overwrite)


@contextmanager
def _checking(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """Hold an output that exists, so that nobody replaces it while it is looked at."""
    with disk_errors(out):
        _check_name(out, overwrite=overwrite)
        with locked(out) if out.exists() else nullcontext():
            yield out


def _check_file(out: Path, inputs: Iterable[Path], *, overwrite: bool) -> None:
    _check_name(out, overwrite=overwrite)
    if out.exists():
        if not out.is_file():
            raise UserError(f"{out} is not a file; choose another name")
        check_apart(out, inputs)


def _check_folder(out: Path, verb: str, inputs: Iterable[Path], *, overwrite: bool) -> None:
    _check_name(out, overwrite=overwrite)
    if out.suffix == ".lmdb" and verb != "convert":
        raise UserError(
            f"{out}: a folder called .lmdb is an LMDB to deepmd-kit, and {verb} writes a folder of "
            "other files; choose a name without .lmdb"
        )
    if out.exists():
        if not out.is_dir():
            raise UserError(f"{out} is a file, not a folder; choose another name")
        check_replaceable(out, verb, inputs)


def _check_name(out: Path, *, overwrite: bool) -> None:
    if out.is_symlink():
        raise UserError(
            f"{out} is a symbolic link to {out.readlink()}; give that name itself, or another one"
        )
    if out.exists() and not overwrite:
        raise UserError(f"{out} exists; choose another name or give --overwrite")


def _named(out: Path) -> Path:
    """Return a path whose last part is the output's name, for ``.`` and ``..`` too."""
    return out.resolve() if out.name in {"", ".."} else out
