"""Reading ``.npy`` and ``.raw`` files: nothing executed, nothing believed, no memory taken."""

from __future__ import annotations

from tokenize import TokenError
from typing import TYPE_CHECKING

import numpy as np

from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

#: numpy parses the header as a Python literal, and fails in as many ways as that can.
_UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    TypeError,
    SyntaxError,
    OverflowError,
    MemoryError,
    RecursionError,
    TokenError,
)

__all__ = ["as_frames", "open_array", "read_types", "read_words"]


def open_array(path: Path) -> np.ndarray:
    """Open an array of numbers without reading it.

    Parameters
    ----------
    path : Path
        A ``.npy`` file.

    Returns
    -------
    np.ndarray
        Mapped from the file, read-only: a shape larger than the file is found at once.

    Raises
    ------
    UserError
        If the file is missing, cut off, pickled, or holds anything but real numbers.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except _UNREADABLE as error:
        reason = "it is pickled" if "pickle" in str(error) else _first_line(error)
        raise UserError(f"{path} is no array of numbers ({reason}); write it again") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        kind = array.dtype if isinstance(array, np.ndarray) else "an archive"
        raise UserError(f"{path} holds {kind}, not real numbers; write it again as float64")
    return array


def as_frames(array: np.ndarray, nframes: int, path: Path) -> np.ndarray:
    """Give an array the shape ``nframes x width``, as deepmd-kit reads it.

    Parameters
    ----------
    array : np.ndarray
        One row for each frame; of one frame, the first axis may be left out; of one column, the
        axes may be swapped (``1 x nframes``).
    nframes : int
        Frames of the set.
    path : Path
        For messages.

    Raises
    ------
    UserError
        If it has another number of rows.
    """
    if array.ndim and len(array) == nframes:
        return array.reshape(nframes, int(np.prod(array.shape[1:], dtype=np.int64)))
    if nframes == 1 or array.shape == (1, nframes):
        return array.reshape(nframes, -1)
    raise UserError(
        f"{path} has the shape {array.shape}, but the set has {nframes} frames (coord.npy); one "
        "row for each frame is needed"
    )


def read_types(path: Path) -> np.ndarray:
    """Read ``type.raw``: the type of every atom, shape ``natoms``.

    Raises
    ------
    UserError
        If it is no list of numbers, 0 or more.
    """
    words = read_words(path)
    try:
        values = np.array([float(word) for word in words])
    except ValueError as error:
        raise UserError(
            f"{path} is no list of numbers ({error}); write one type per line"
        ) from None
    if not len(values) or (values != np.round(values)).any() or values.min() < 0:
        raise UserError(f"{path} must hold the type of every atom: 0, 1, 2, ...")
    if values.max() > np.iinfo(np.int32).max:
        raise UserError(f"{path}: {values.max():g} is not the number of a type")
    return values.astype(np.int64)


def read_words(path: Path) -> list[str]:
    """Read a text file of names or numbers, separated by white space.

    Raises
    ------
    UserError
        If it cannot be read or is no text.
    """
    try:
        return path.read_text(encoding="utf-8-sig").split()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({_first_line(error)})") from None


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
