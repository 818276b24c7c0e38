"""Statistics that are kept by the content of the data."""

import json
import shutil

import numpy as np
import pytest

from deepmd_mft.files.cache import content_key, remembered
from tests.helpers.dp import DATA, Dp, single_input


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "deepmd_mft"


def copied(tmp_path, name="one"):
    shutil.copytree(DATA / "valid", tmp_path / name)
    return tmp_path / name


def test_the_key_follows_the_content_and_the_options(tmp_path):
    one, two = copied(tmp_path), copied(tmp_path, "two")
    key = content_key([str(one)], ["coord", "gap"], 6.0)
    assert key == content_key([str(two)], ["gap", "coord"], 6.0)
    assert key != content_key([str(one)], ["coord", "gap"], 6.1)
    assert key != content_key([str(one), str(two)], ["coord", "gap"], 6.0)
    labels = np.load(two / "set.000" / "gap.npy")
    labels[17] += 1e-3
    np.save(two / "set.000" / "gap.npy", labels)
    assert key != content_key([str(two)], ["coord", "gap"], 6.0)
    assert content_key([str(two)], ["coord"], 6.0) == content_key([str(one)], ["coord"], 6.0)
    (two / "set.000" / "gap.npy").unlink()
    assert key != content_key([str(two)], ["coord", "gap"], 6.0)
    assert content_key(["file.hdf5"], ["coord"]) is None


def test_what_was_computed_is_not_computed_again(home):
    calls = []

    def compute():
        calls.append(1)
        return {"a": np.arange(3.0)}

    for _ in range(2):
        assert remembered("some_numbers", "key", compute)["a"].tolist() == [0.0, 1.0, 2.0]
    assert len(calls) == 1
    (home / "some_numbers" / "key.npz").write_bytes(b"cut off")
    assert remembered("some_numbers", "key", compute)["a"].tolist() == [0.0, 1.0, 2.0]
    assert len(calls) == 2
    remembered("some_numbers", None, compute)
    assert len(calls) == 3


def test_a_cache_that_cannot_be_written_stops_nothing(home):
    home.parent.write_text("a file where the folder should be")
    assert remembered("some_numbers", "key", lambda: {"a": np.ones(1)})["a"].tolist() == [1.0]


def test_the_second_training_starts_from_what_the_first_found(home, tmp_path):
    config = single_input()
    config["training"].update(numb_steps=1, disp_freq=1, save_freq=1)
    logs, curves = [], []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        dp = Dp(folder)
        (folder / "input.json").write_text(json.dumps(config))
        logs.append(dp("train", "input.json"))
        curves.append((folder / "lcurve.out").read_text())
    assert curves[0] == curves[1]
    assert "neighbour statistics: known" not in logs[0]
    assert "Reading labels" in logs[0]
    assert "Reading labels" not in logs[1]
    assert logs[1].count("neighbour statistics: known from an earlier run") == 2
    assert "label statistics: known from an earlier run" in logs[1]
    assert len(list((home / "neighbour_statistics").glob("*.npz"))) == 2
