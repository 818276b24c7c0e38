"""How deepmd-kit reads frames."""

import numpy as np
import torch
from deepmd.dpmodel.utils.lmdb_data import LmdbDataReader
from deepmd.pt.utils.dataloader import DpLoaderSet
from deepmd.utils import data

from deepmd_mft.bridge import reading
from deepmd_mft.training.losses import MFTPropertyLoss
from tests.helpers.deepmd_data import make_frames, write_lmdb
from tests.helpers.dp import DATA, TYPE_MAP
from tests.helpers.labels import gaps, write_npy


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


def test_a_label_that_a_set_lacks_is_nan(tmp_path):
    """deepmd-kit fills in the default, and flags a batch by its first frame alone."""
    system = write_npy(tmp_path / "system", gaps())
    (write_npy(tmp_path / "other", None) / "set.000").rename(system / "set.001")
    loader = DpLoaderSet([str(system)], 2 * len(gaps()), TYPE_MAP, shuffle=False)
    loader.add_data_requirement(MFTPropertyLoss("gap", missing_labels="mask").label_requirement)
    batch = loader[0]
    labels = reading.label_or_nan(batch, "gap").numpy()
    np.testing.assert_array_equal(labels[: len(gaps())], gaps())
    assert np.isnan(labels[len(gaps()) :]).all()
    backwards = {"gap": batch["gap"].flip(0), "find_gap": np.float32(0.0)}
    np.testing.assert_array_equal(reading.label_or_nan(backwards, "gap").flip(0), labels)


def test_labels_filled_with_another_default_are_nan():
    batch = {"gap": torch.zeros(3, 2), "find_gap": np.float32(0.0)}
    assert reading.label_or_nan(batch, "gap").isnan().all()


def test_an_lmdb_is_shared_with_deepmd_kits_reader(tmp_path):
    """Its environments are counted, and records are decoded as the reader decodes them."""
    frames = make_frames(3)
    write_lmdb(tmp_path / "set.lmdb", frames)
    path = str(tmp_path / "set.lmdb")
    reader = LmdbDataReader(path, ["H", "C", "O"])
    with reading.opened_lmdb(path) as environment, environment.begin() as transaction:
        records = [
            reading.decode_record(transaction.get(format(row, "012d").encode())) for row in range(3)
        ]
    for row, record in enumerate(records):
        frame = reader[row]  # still open
        np.testing.assert_array_equal(record["coord"], frame["coord"])
        np.testing.assert_array_equal(record["atype"], frame["atype"])
        np.testing.assert_array_equal(record["energy"], frame["energy"])
        np.testing.assert_array_equal(record["gap"], frames[row].labels["gap"])
