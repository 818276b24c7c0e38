"""Opening HDF5 files, with a message for the truncated ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import h5py

from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["open_hdf5"]


def open_hdf5(path: Path) -> h5py.File:
    """Open an HDF5 file for reading."""
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise UserError(
            f"{path} cannot be opened as HDF5 ({error}); an interrupted download leaves such "
            "a file: fetch it again"
        ) from error
