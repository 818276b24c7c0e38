"""Arrays are whole, or it is said."""

from __future__ import annotations

import resource

import numpy as np
import pytest

from deepmd_mft.files.npy import save_array


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12.0).reshape(3, 4),
        np.arange(12.0).reshape(3, 4).T[::2],
        np.zeros((0, 9)),
        np.array(3.0),
        np.arange(5, dtype=np.int32),
        np.array([True, False]),
    ],
)
def test_numpy_reads_them_back(tmp_path, array):
    save_array(tmp_path / "a.npy", array)
    found = np.load(tmp_path / "a.npy", allow_pickle=False)
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, np.ascontiguousarray(array))


@pytest.mark.parametrize("rows", [30, 30_000])
def test_a_full_disk_is_noticed(tmp_path, rows):
    old, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            save_array(tmp_path / "a.npy", np.ones((rows, 9)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (old, hard))
