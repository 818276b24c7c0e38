"""How deepmd-kit reads frames."""

import numpy as np
from deepmd.utils import data

from deepmd_mft.bridge import reading
from tests.helpers.dp import DATA, TYPE_MAP


def test_frames_read_without_threads_are_the_same():
    """The workaround for deepmd-kit 3.2.0's thread pool per frame; without one, it does nothing."""
    assert hasattr(data, "ThreadPoolExecutor"), "no thread pool: drop the workaround"
    system = data.DeepmdData(str(DATA / "valid"), type_map=TYPE_MAP)
    system.add("gap", 1, must=True, high_prec=True)
    pool = data.ThreadPoolExecutor
    threaded = system.get_single_frame(7, num_worker=1)
    try:
        reading.read_frames_without_threads()
        inline = system.get_single_frame(7, num_worker=1)
    finally:
        data.ThreadPoolExecutor = pool
    assert threaded.keys() == inline.keys()
    for key, value in threaded.items():
        np.testing.assert_array_equal(inline[key], value)
