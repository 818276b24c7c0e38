"""Writing ``.npy`` files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.lib import format as npy_format

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["save_array"]


def save_array(path: Path, array: np.ndarray) -> None:
    """Write an array of numbers as ``numpy.save`` does, and notice when the disk is full.

    ``numpy.save`` hands the file to C's buffered streams and does not look at what closing them
    says: of a small array on a full disk it loses the end without a word.
    """
    array = np.ascontiguousarray(array)
    with path.open("wb") as handle:
        npy_format.write_array_header_1_0(handle, npy_format.header_data_from_array_1_0(array))
        handle.write(array.data)
