"""Batches, shares, steps and learning rate are deepmd-kit's."""

import json

import numpy as np
import pytest

from deepmd_mft.cli import main
from deepmd_mft.errors import UserError
from tests.helpers.dp import mft_input, single_input
from tests.helpers.gate import run_gate
from tests.helpers.systems import record, write_lmdb, write_system


@pytest.fixture
def facts(tmp_path, capsys):
    """Check a property input on given systems; return facts and warnings."""

    def run(systems, batch_size, **training):
        config = single_input()
        part = {"systems": systems, "batch_size": batch_size}
        training = training or {"numb_steps": 60}
        config["training"] = {"training_data": part, "seed": 1, **training}
        path = tmp_path / "input.json"
        path.write_text(json.dumps(config))
        main(["check", str(path), "--json"])
        return json.loads(capsys.readouterr().out)

    return run


def system(tmp_path, name, natoms, nframes):
    symbols = " ".join(["C", *["H"] * (natoms - 1)])
    gap = np.linspace(0, 1, nframes)[:, None]
    return str(write_system(tmp_path / name, symbols=symbols, nframes=nframes, gap=gap))


@pytest.mark.parametrize(
    ("rule", "frames"),
    [
        ("auto", 3),  # 32 atoms at least: 3 x 11
        ("auto:128", 12),
        ("max:128", 11),
        ("max:5", 1),
        ("filter:128", 11),
        (7, 7),
        ([6], 6),
        (1000, 50),  # there are no more
    ],
)
def test_batch_size_of_one_system(facts, tmp_path, rule, frames):
    found = facts([system(tmp_path, "eleven", 11, 50)], rule)
    assert found["errors"] == []
    own = found["facts"]["model"]
    assert own["frames_per_batch"] == frames
    batches = -(-50 // frames)  # the last is not full
    assert own["epochs"] == pytest.approx(60 / batches, abs=0.01)


def test_padding_counts_in_mixed_systems(facts):
    """A mixed system has the atoms of its largest structure, 29 here."""
    from tests.helpers.dp import DATA

    assert facts(str(DATA / "train"), "auto:512")["facts"]["model"]["frames_per_batch"] == 18
    assert facts(str(DATA / "train"), "max:512")["facts"]["model"]["frames_per_batch"] == 17


def test_systems_are_drawn_by_their_batches(facts, tmp_path):
    """32 frames in 8 batches of 4 (8 atoms), 6 in 3 of 2 (16 atoms): 8/11 of the steps see 4."""
    systems = [system(tmp_path, "small", 8, 32), system(tmp_path, "large", 16, 6)]
    own = facts(systems, "auto:32")["facts"]["model"]
    assert own["frames_per_batch"] == pytest.approx((8 * 4 + 3 * 2) / 11, abs=0.01)
    assert own["epochs"] == pytest.approx(60 / 11, abs=0.01)


def test_filtered_systems_are_left_out(facts, tmp_path):
    systems = [system(tmp_path, "small", 8, 32), system(tmp_path, "large", 16, 6)]
    assert facts(systems, "filter:15")["facts"]["model"]["frames_per_batch"] == 1
    (error,) = facts(systems, "filter:4")["errors"]
    assert "No system left" in error


def test_batches_of_an_lmdb(facts, tmp_path):
    records = [record(n, gap=np.array([0.1 * n])) for n in (3, 3, 3, 3, 5, 5, 5)]
    found = facts(str(write_lmdb(tmp_path / "set.lmdb", records)), "auto:6")
    assert found["errors"] == []
    assert found["facts"]["model"]["frames_per_batch"] == pytest.approx(7 / 4)  # 2, 2 and 2, 1


@pytest.mark.parametrize(
    ("rule", "message"),
    [("mixed:16", "mixed:16"), ("half", "half"), ([4, 4], "2 entries for 1 systems")],
)
def test_batch_sizes_that_deepmd_refuses(facts, tmp_path, rule, message):
    (error,) = facts([system(tmp_path, "eleven", 11, 50)], rule)["errors"]
    assert message in error
    assert "batch_size" in error


def test_epochs_instead_of_steps(facts, tmp_path):
    found = facts([system(tmp_path, "eleven", 11, 50)], 10, num_epoch=3)
    assert found["errors"] == []
    assert found["facts"]["model"]["steps"] == 15


def mft_without_shares(tmp_path, model_prob=None):
    """Three systems of forces, one of labels; 3000 steps."""
    config = mft_input()
    training = config["training"]
    training["numb_steps"] = 3000
    del training["model_prob"]
    if model_prob is not None:
        training["model_prob"] = model_prob
    path = tmp_path / "input.json"
    path.write_text(json.dumps(config))
    return config, path


def test_shares_left_out_follow_the_systems(tmp_path, capsys):
    _, path = mft_without_shares(tmp_path)
    main(["check", str(path), "--json"])
    found = json.loads(capsys.readouterr().out)
    steps = {name: found["facts"][name]["steps"] for name in ("GFN2", "property")}
    assert steps == {"GFN2": 2250, "property": 750}
    (told,) = [text for text in found["warnings"] if "model_prob is left out" in text]
    assert "GFN2 0.75 (3), property 0.25 (1)" in told


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"GFN2": 1.0}, "missing: .'property'."),
        ({"GFN2": 0.0, "property": 0.0}, "must be larger than 0"),
        ({"GFN2": -1.0, "property": 2.0}, "non-negative"),
    ],
)
def test_shares_that_deepmd_refuses(tmp_path, shares, message):
    config, _ = mft_without_shares(tmp_path, shares)
    with pytest.raises(UserError, match=message):
        run_gate(config, tmp_path)


def test_a_share_of_no_branch(tmp_path, capsys):
    _, path = mft_without_shares(tmp_path, {"GFN2": 0.5, "property": 0.5, "SPICE2": 0.5})
    main(["check", str(path), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert any("model_prob names SPICE2" in text for text in found["warnings"])
    assert found["facts"]["property"]["steps"] == 1500


@pytest.mark.parametrize(
    "schedule",
    [
        {"type": "exp", "start_lr": 1e-3, "stop_lr": 1e-5, "warmup_steps": 60},
        {"type": "cosine", "start_lr": 1e-3, "stop_lr": 1e-5, "warmup_steps": 100},
        {"type": "wsd", "start_lr": 1e-3, "stop_lr": 1e-5, "warmup_ratio": 1.0},
    ],
)
def test_warm_up_as_long_as_the_training(tmp_path, schedule):
    config = single_input()
    config["training"]["numb_steps"] = 60
    config["learning_rate"] = schedule
    with pytest.raises(UserError, match="warmup_steps must be smaller than num_steps"):
        run_gate(config, tmp_path)
    config["training"]["numb_steps"] = 300
    if "warmup_steps" in schedule:
        run_gate(config, tmp_path)
