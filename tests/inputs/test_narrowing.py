"""`dp-mft input` fits neighbour lists to the data, in the input and a copy of the checkpoint."""

import json

import numpy as np
import pytest
import torch

from deepmd_mft.checkpoints.start import first_weights, read_starts
from deepmd_mft.cli import main
from deepmd_mft.files.checksums import file_checksum
from tests.helpers.dp import DATA, DESCRIPTOR, Dp, mft_input, single_input
from tests.helpers.models import save_checkpoint
from tests.helpers.systems import write_system

WIDE = {"e_sel": 1200, "a_sel": 300, "sel_reduce_factor": 10.0}
N = 3


def wide(**repflow):
    return {**DESCRIPTOR, "repflow": {**DESCRIPTOR["repflow"], **WIDE, **repflow}}


def wide_input(**repflow):
    config = single_input()
    config["model"]["descriptor"] = wide(**repflow)
    return config


@pytest.fixture
def split(tmp_path):
    """A split whose structures out of distribution are the densest: 27 atoms on a grid."""
    folder = tmp_path / "split"
    for name, atoms, seed in (("train", 5, 0), ("val", 5, 1), ("ood_test", 27, 2)):
        symbols = " ".join(["C", *["H"] * (atoms - 1)])
        gap = np.arange(N, dtype=float)[:, None]
        write_system(folder / name / "1", nframes=N, symbols=symbols, seed=seed, gap=gap)
    return folder


@pytest.fixture
def fill(tmp_path, capsys):
    """Fill a template; return the input, what was told and what lies beside it."""

    def run(template, *words, ok=True):
        (tmp_path / "run").mkdir(exist_ok=True)
        path = tmp_path / "template.json"
        path.write_text(json.dumps(template))
        out = tmp_path / "run" / "input.json"
        assert main(["input", str(path), *map(str, words), "-o", str(out)]) == (0 if ok else 1)
        told = capsys.readouterr().err
        files = sorted(one.name for one in out.parent.iterdir())
        return (json.loads(out.read_text()) if ok else {}), told, files

    return run


def most(split, cutoff):
    """Most neighbours of an atom, by a loop over everything."""
    found = 0
    for coords in split.rglob("coord.npy"):
        for frame in np.load(coords):
            places = frame.reshape(-1, 3)
            distance = np.linalg.norm(places[:, None] - places[None], axis=2)
            found = max(found, int((distance < cutoff).sum(1).max()) - 1)
    return found


def data(split):
    return ["--train", split / "train", "--valid", split / "val"]


def test_lists_for_all_sets_of_the_split(fill, split, tmp_path, monkeypatch, capsys):
    checkpoint = save_checkpoint(tmp_path / "model.pt", descriptor=wide())
    before = file_checksum(checkpoint)
    config, told, files = fill(wide_input(), "--checkpoint", checkpoint, *data(split))
    copy = tmp_path / "run" / "input.model.tight.pt"
    assert files == ["input.json", copy.name]
    assert file_checksum(checkpoint) == before
    repflow = config["model"]["descriptor"]["repflow"]
    assert 1.2 * most(split, 4.0) <= repflow["e_sel"] < 100
    assert 1.2 * most(split, 3.0) <= repflow["a_sel"]
    assert most(split, 4.0) > 3 * most(split / "train", 4.0)  # a list for it would be too narrow
    assert repflow["e_sel"] / repflow["sel_reduce_factor"] == 120
    assert repflow["a_sel"] / repflow["sel_reduce_factor"] == 30
    params = torch.load(copy, weights_only=True)["model"]["_extra_state"]["model_params"]
    assert params["descriptor"]["repflow"]["e_sel"] == repflow["e_sel"]
    record = config["_dp_mft_input"]
    assert (record["checkpoint"], record["checkpoint_sha256"]) == (str(copy), file_checksum(copy))
    assert record["tightened"]["original"] == str(checkpoint)
    assert record["tightened"]["original_sha256"] == before
    assert f"dp --pt train input.json --finetune {copy}" in told
    assert "e_sel 1200 -> " in told
    assert "in train, ood_test, val;" in told
    # the whole training data holds, and a regulariser may name either checkpoint
    config["model"]["finetune_head"] = "RANDOM"
    config["loss"]["regularizers"] = [
        {"type": "l2_sp", "weight": 1.0, "reference": str(checkpoint)}
    ]
    (tmp_path / "run" / "input.json").write_text(json.dumps(config))
    monkeypatch.chdir(tmp_path / "run")
    main(["check", "input.json", "--finetune", str(copy), "--json"])
    assert json.loads(capsys.readouterr().out)["errors"] == []
    main(["check", "input.json", "--finetune", str(checkpoint), "--json"])
    told = capsys.readouterr().out
    assert "descriptor differs" in told
    assert f"e_sel is {repflow['e_sel']} in the input and 1200 in {checkpoint}" in told


def test_lists_that_are_too_narrow(fill, split, tmp_path):
    narrow = {"e_sel": 12, "a_sel": 9, "sel_reduce_factor": 1.0}
    checkpoint = save_checkpoint(tmp_path / "model.pt", descriptor=wide(**narrow))
    config, _, _ = fill(wide_input(), "--checkpoint", checkpoint, *data(split))
    repflow = config["model"]["descriptor"]["repflow"]
    assert repflow["e_sel"] >= 1.2 * most(split, 4.0) > 12
    assert repflow["e_sel"] / repflow["sel_reduce_factor"] == 12


def test_without_a_checkpoint_the_input_alone(fill, split):
    config, _, files = fill(wide_input(), *data(split))
    assert files == ["input.json"]
    assert config["model"]["descriptor"]["repflow"]["e_sel"] < 100
    assert "_dp_mft_input" not in config


@pytest.mark.parametrize(
    ("repflow", "words", "message"),
    [
        ({}, ["--no-tighten"], ""),
        ({"use_dynamic_sel": False}, [], "lists stay as they are (model/descriptor: without"),
        ({"e_sel": 40, "a_sel": 30, "sel_reduce_factor": 1.0}, [], ""),  # nothing would be won
    ],
)
def test_lists_that_stay(fill, split, tmp_path, repflow, words, message):
    checkpoint = save_checkpoint(tmp_path / "model.pt", descriptor=wide(**repflow))
    start = ["--checkpoint", checkpoint, *data(split)]
    config, told, files = fill(wide_input(**repflow), *start, *words)
    assert files == ["input.json"]
    assert config["model"]["descriptor"]["repflow"]["e_sel"] == {**WIDE, **repflow}["e_sel"]
    assert message in told
    assert f"--finetune {checkpoint}" in told
    assert config["_dp_mft_input"]["checkpoint"] == str(checkpoint)


def test_data_that_are_not_there(fill, split, tmp_path):
    template = wide_input()
    template["training"]["validation_data"]["systems"] = "data/valid"
    config, told, _ = fill(template, "--train", split / "train")
    assert config["model"]["descriptor"]["repflow"]["e_sel"] == 1200
    assert "data/valid is not there to be counted" in told


def test_a_copy_is_not_written_over_another_file(fill, split, tmp_path):
    checkpoint = save_checkpoint(tmp_path / "model.pt", descriptor=wide())
    (tmp_path / "run").mkdir()
    other = tmp_path / "run" / "input.model.tight.pt"
    other.write_text("mine")
    _, told, files = fill(wide_input(), "--checkpoint", checkpoint, *data(split), ok=False)
    assert f"{other} exists" in told
    assert other.read_text() == "mine"
    assert files == [other.name]


def test_a_training_from_the_copy(tmp_path):
    checkpoint = save_checkpoint(tmp_path / "model.pt", descriptor=wide())
    template = mft_input()
    template["model"]["shared_dict"]["dpa3_descriptor"] = wide()
    (tmp_path / "template.json").write_text(json.dumps(template))
    words = ["--checkpoint", checkpoint, "--steps", 2, "--aux-train", DATA / "aux_valid"]
    words += ["--train", DATA / "valid", "--valid", DATA / "valid", "-o", tmp_path / "input.json"]
    assert main(["input", str(tmp_path / "template.json"), *map(str, words)]) == 0
    config = json.loads((tmp_path / "input.json").read_text())
    copy = tmp_path / "input.model.tight.pt"
    Dp(tmp_path).train(config, "--finetune", copy.name)
    assert first_weights(tmp_path, "model.ckpt")[0] == copy.name
    (start,) = read_starts(tmp_path)
    assert start["filled"]["tightened"]["original_sha256"] == file_checksum(checkpoint)
