"""Opening HDF5 files: a message for the truncated ones, nothing read from outside the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import h5py
import numpy as np

from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["group_of", "groups", "open_hdf5", "read_array", "read_text"]

# One molecule with all its conformers needs megabytes; HDF5 can claim any size.
_LARGEST = 2**30


def open_hdf5(path: Path) -> h5py.File:
    """Open an HDF5 file for reading."""
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise UserError(
            f"{path} cannot be opened as HDF5 ({error}); an interrupted download leaves such "
            "a file: fetch it again"
        ) from error


def groups(parent: h5py.Group) -> Iterator[tuple[str, h5py.Group]]:
    """Yield the groups in a group, by name."""
    for name in parent:
        yield name, group_of(parent, name)


def group_of(parent: h5py.Group, name: str) -> h5py.Group:
    """Return a group in a group."""
    group = _inside(parent, name)
    if not isinstance(group, h5py.Group):
        raise UserError(f"{_place(parent, name)} is a data set, expected a group")
    return group


def read_array(group: h5py.Group, name: str) -> np.ndarray:
    """Read a whole data set of numbers, in double precision if they are floating point.

    Raises
    ------
    UserError
        If it is missing, damaged, lies in another file, holds no numbers or claims gigabytes.
    """
    dataset = _dataset(group, name)
    if dataset.dtype.kind not in "iufb":
        raise UserError(f"{_place(group, name)} holds {dataset.dtype}, expected numbers")
    array = np.asarray(_content(dataset))
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def read_text(group: h5py.Group, name: str) -> str:
    """Read a data set of one text."""
    value = np.asarray(_content(_dataset(group, name))).reshape(-1)
    if not len(value):
        return ""
    return value[0].decode() if isinstance(value[0], bytes) else str(value[0])


def _dataset(group: h5py.Group, name: str) -> h5py.Dataset:
    dataset = _inside(group, name)
    if not isinstance(dataset, h5py.Dataset):
        raise UserError(f"{_place(group, name)} is a group, expected a data set")
    if dataset.external or dataset.is_virtual:
        raise UserError(f"{_place(group, name)} keeps its data in another file, which is not read")
    if dataset.nbytes > _LARGEST:
        raise UserError(
            f"{_place(group, name)} claims {dataset.nbytes:,} bytes, more than one molecule has"
        )
    return dataset


def _content(dataset: h5py.Dataset) -> object:
    try:
        return dataset[()]
    except OSError as error:
        raise UserError(
            f"{dataset.file.filename}, {dataset.name}: {error}; is the file damaged?"
        ) from error


def _inside(group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset:
    if name not in group:
        raise UserError(f"{_place(group, name)} is missing; there are {', '.join(group)}")
    if isinstance(group.get(name, getlink=True), h5py.ExternalLink):
        raise UserError(f"{_place(group, name)} is a link to another file, which is not followed")
    return group[name]


def _place(group: h5py.Group, name: str) -> str:
    return f"{group.file.filename}, {group.name.rstrip('/')}/{name}"
