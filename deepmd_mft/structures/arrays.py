"""Reading ``.npy`` and ``.raw`` files: nothing executed, nothing believed, no memory taken.

A file may be a data set of an HDF5 file instead: deepmd-kit takes groups (``file.hdf5#/group``) for
folders.
"""

from __future__ import annotations

from pathlib import Path
from tokenize import TokenError
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np

from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    from deepmd.utils.path import DPPath

#: A folder or file, or a group or data set of an HDF5 file.
Place: TypeAlias = Union[Path, "DPPath"]

#: How many times smaller than its content a data set of HDF5 can be stored.
PACKED = 1100
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
    KeyError,  # of HDF5
)

__all__ = ["Place", "as_frames", "open_array", "place_of", "read_types", "read_words", "shape_of"]


def place_of(system: str) -> Place:
    """Return what deepmd-kit takes a text of ``systems`` for: a folder, or a group of HDF5."""
    if Path(system).is_dir():
        return Path(system)
    from deepmd.utils.path import DPPath  # noqa: PLC0415

    try:
        return DPPath(system)
    except OSError as error:
        raise UserError(f"{system} cannot be read ({_first_line(error)})") from None


def shape_of(path: Place) -> tuple[int, ...]:
    """Return the shape of an array; no more than its header is read.

    Raises
    ------
    UserError
        As :func:`open_array` does.
    """
    return tuple((open_array(path) if isinstance(path, Path) else _dataset(path)).shape)


def open_array(path: Place) -> np.ndarray:
    """Open an array of numbers without reading it; one of HDF5 is read.

    Parameters
    ----------
    path : Path or DPPath
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
        array = _load(path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except _UNREADABLE as error:
        objects = "pickle" in str(error) or "ython object" in str(error)
        reason = "it is pickled Python objects" if objects else _first_line(error)
        raise UserError(f"{path} is no array of numbers ({reason}); write it again") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        kind = array.dtype if isinstance(array, np.ndarray) else "an archive"
        raise UserError(f"{path} holds {kind}, not real numbers; write it again as float64")
    return array


def _load(path: Place) -> np.ndarray:
    if isinstance(path, Path):
        return np.load(path, mmap_mode="r", allow_pickle=False)
    return np.asarray(_dataset(path)[()])


def _dataset(path: DPPath) -> Any:
    """Return a data set of HDF5 that is in the file itself, and as large as it claims.

    deepmd-kit's path takes links for nothing, except to read them.
    """
    dataset = path.root[str(path).partition("#")[2]] if path.is_file() else None
    if dataset is None:
        raise UserError(f"{path} does not exist")
    if dataset.is_virtual or dataset.external:
        raise UserError(f"{path} keeps its data in another file, which is not read")
    if dataset.nbytes > PACKED * max(dataset.id.get_storage_size(), 1024):
        raise UserError(f"{path} claims {dataset.nbytes:,} bytes, which are not there")
    return dataset


def as_frames(array: np.ndarray, nframes: int, path: Place) -> np.ndarray:
    """Give an array the shape ``nframes x width``, as deepmd-kit reads it.

    Parameters
    ----------
    array : np.ndarray
        One row for each frame; of one frame, the first axis may be left out; of one column, the
        axes may be swapped (``1 x nframes``).
    nframes : int
        Frames of the set.
    path : Path or DPPath
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


def read_types(path: Place) -> np.ndarray:
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


def read_words(path: Place) -> list[str]:
    """Read a text file of names or numbers, separated by white space; ``#`` begins a comment.

    Raises
    ------
    UserError
        If it cannot be read or is no text.
    """
    try:
        if not isinstance(path, Path):
            return [str(word) for word in np.ravel(_load(path).astype(str))]
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        return [word for line in lines for word in line.partition("#")[0].split()]
    except (OSError, UnicodeDecodeError, KeyError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({_first_line(error)})") from None


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
