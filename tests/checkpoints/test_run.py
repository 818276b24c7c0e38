"""The folder of a run: its own record, its curve, its start, and models as they are written."""

import json
import shutil

import pytest

from deepmd_mft.checkpoints.model_file import ModelFile
from deepmd_mft.checkpoints.run import TrainingRun, best_model
from deepmd_mft.checkpoints.start import first_weights, read_starts
from deepmd_mft.errors import UserError
from tests.helpers.dp import Dp, single_input


def test_the_record_of_what_was_trained_is_read(tmp_path):
    """The run was trained from another file than the input.json that lies there."""
    folder = tmp_path / "run"
    folder.mkdir()
    config = single_input()
    (folder / "trained.json").write_text(json.dumps(config))
    Dp(folder)("train", "trained.json", "--skip-neighbor-stat")
    config["training"]["numb_steps"] = 77
    (folder / "input.json").write_text(json.dumps(config))
    run = TrainingRun(folder)
    assert run.config["training"]["numb_steps"] == 6
    assert run.property_branch().labels == {"gap": 1}
    (start,) = read_starts(folder)
    assert start["input"] == "trained.json"
    assert start["training_labels"][""]["gap"]["labels"] == 128
    assert first_weights(folder, "model.ckpt") == (None, "dp_mft_start.json")


def test_rows_that_a_restart_repeats(tmp_path):
    (tmp_path / "out.json").write_text('{"model": {}, "training": {}}')
    rows = ["1 9.0", "2 8.0", "3 7.0", "4 6.0", "3 5.0", "5 4.0", "6"]
    header = "#  step      rmse_val\n# If there is no available reference data ...\n"
    (tmp_path / "lcurve.out").write_text(header + "\n".join(rows))
    curve = TrainingRun(tmp_path).learning_curve()
    assert list(curve["step"]) == [1, 2, 3, 5]
    assert list(curve["rmse_val"]) == [9.0, 8.0, 5.0, 4.0]


def test_models_as_they_are_written(tmp_path):
    odd = tmp_path / "a:b.pt"
    odd.touch()
    assert ModelFile.parse(f"x={odd}") == ModelFile("x", odd, None)
    assert ModelFile.parse(f"x={odd}:GFN2") == ModelFile("x", odd, "GFN2")
    assert ModelFile.parse(f"{odd}", "gap") == ModelFile(f"{tmp_path.name}/a:b.pt", odd, "gap")
    equals = tmp_path / "lr=1.pt"
    equals.touch()
    assert ModelFile.parse(str(equals)).path == equals
    with pytest.raises(UserError, match=r"\[NAME=\]FILE\[:BRANCH\]"):
        ModelFile.parse("nowhere.pt")


def test_models_of_one_name_are_seeds_only_if_it_was_given(tmp_path):
    """FT and MFT were averaged as two seeds where their folders are called seed1."""
    files = [tmp_path / kind / "seed1" / "m.pt" for kind in ("ft", "mft")]
    for file in files:
        file.parent.mkdir(parents=True)
        file.touch()
    texts = [str(file) for file in files]
    assert [one.name for one in ModelFile.parse_all(texts)] == texts
    assert [one.name for one in ModelFile.parse_all(texts[:1])] == ["seed1/m.pt"]
    assert {one.name for one in ModelFile.parse_all([f"a={text}" for text in texts])} == {"a"}
    branches = [f"{texts[0]}:{branch}" for branch in ("one", "two")]
    assert [one.name for one in ModelFile.parse_all(branches)] == branches
    for twice in ([texts[0]] * 2, [f"a={texts[0]}", f"a={tmp_path}/ft/../ft/seed1/m.pt"]):
        with pytest.raises(UserError, match="are the same model"):
            ModelFile.parse_all(twice)
    assert len(ModelFile.parse_all([f"a={texts[0]}", f"b={texts[0]}"])) == 2


def test_a_selected_model_that_was_removed(tmp_path):
    """The last checkpoint was taken for it."""
    (tmp_path / "model.ckpt-9.pt").touch()
    (tmp_path / "model.ckpt.pt").symlink_to("model.ckpt-9.pt")
    assert best_model(tmp_path).name == "model.ckpt.pt"
    (tmp_path / "model.best.pt").symlink_to("model.ckpt-3.pt")
    with pytest.raises(UserError, match=r"link to model.ckpt-3.pt, which is not there any more"):
        best_model(tmp_path)


def test_the_model_of_a_run(tmp_path):
    (tmp_path / "out.json").write_text('{"model": {}, "training": {"save_ckpt": "c/m"}}')
    with pytest.raises(UserError, match="has no model"):
        best_model(tmp_path)
    (tmp_path / "c").mkdir()
    for name in ("c/m-9.pt", "c/m-10.pt"):
        (tmp_path / name).touch()
    assert best_model(tmp_path) == tmp_path / "c" / "m-10.pt"
    (tmp_path / "a.pth").touch()
    assert best_model(tmp_path) == tmp_path / "a.pth"
    (tmp_path / "b.pth").touch()
    with pytest.raises(UserError, match=r"2 frozen models \(a.pth, b.pth\)"):
        best_model(tmp_path)


LOG = """[x] DEEPMD INFO    Configuration path: input.json
{resumed}[x] DEEPMD INFO    Start to train 6 steps.
"""
RESUMED = "[x] DEEPMD INFO    Resuming from {}.\n"


@pytest.mark.parametrize(
    ("resumed", "expected"),
    [
        ([""], (None, "train.log")),
        (["../DPA-3.1-3M.pt"], ("../DPA-3.1-3M.pt", "train.log")),
        (["pre.pt", "model.ckpt-3.pt"], ("pre.pt", "train.log")),
        (["", "./model.ckpt-3.pt"], (None, "train.log")),
        (["model.ckpt-3.pt"], None),
    ],
)
def test_first_weights_from_the_log(tmp_path, resumed, expected):
    text = "".join(LOG.format(resumed=RESUMED.format(one) if one else "") for one in resumed)
    (tmp_path / "train.log").write_text(text)
    assert first_weights(tmp_path, "model.ckpt") == expected


def test_first_weights_from_the_record(mft_run, pretrained, tmp_path):
    assert first_weights(mft_run, "model.ckpt") == (str(pretrained), "dp_mft_start.json")
    shutil.copy(mft_run / "train.log", tmp_path)
    assert first_weights(tmp_path, "model.ckpt") == (str(pretrained), "train.log")
    assert first_weights(tmp_path / "..", "model.ckpt") is None
