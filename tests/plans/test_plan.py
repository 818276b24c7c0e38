"""`dp-mft plan` fills the inputs of folds, strategies and seeds, or says what is wrong."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from deepmd_mft.cli import main
from deepmd_mft.plans.strategies import read_strategies, with_seed
from tests.helpers.dp import DATA, mft_input, single_input


def read(path):
    return json.loads(path.read_text())


def with_heads(config):
    """Return an input that starts from a checkpoint."""
    config["model"]["finetune_head"] = "RANDOM"
    return config


def test_every_fold_strategy_and_seed_has_its_input(plan, folds, template, pretrained, tmp_path):
    ft = tmp_path / "ft.json"
    ft.write_text(json.dumps(with_heads(single_input())))
    out, told = plan(
        *(folds, "--template", template, f"tuned={ft}", "--checkpoint", pretrained),
        *("--seeds", "1", "7", "--steps", "4"),
    )
    names = [f"{fold}-{strategy}-s{seed}" for fold in ("fold_00", "fold_01")
             for strategy in ("scratch", "tuned") for seed in (1, 7)]  # fmt: skip
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == sorted(names)
    assert list(read(out / "plan.json")["runs"]) == names
    for name in names:
        fold, strategy, seed = name.split("-")
        config = read(out / name / "input.json")
        training = config["training"]
        for section, part in (("training_data", "train"), ("validation_data", "val")):
            systems = (out / name / training[section]["systems"]).resolve()
            assert systems == (folds / fold / part).resolve()
        seeds = [training["seed"], config["model"]["descriptor"]["seed"]]
        assert {*seeds, config["model"]["fitting_net"]["seed"]} == {int(seed[1:])}
        assert training["numb_steps"] == 4
        assert ("_dp_mft_input" in config) == (strategy == "tuned")
        script = (out / name / "run.sh").read_text()
        assert ("--finetune" in script) == (strategy == "tuned")
    assert "scratch: from random weights, 2 x 2 runs" in told
    assert f"tuned: from {pretrained}, 2 x 2 runs" in told


def test_a_plan_is_extended(plan, folds, template):
    """What is there stays, byte for byte and by its time; another input under a name is refused."""
    given = (folds, "--template", template, "--steps", "4")
    out, _ = plan(*given)
    kept = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    _, told = plan(*given)
    assert "0 of 2 runs are new" in told
    for path, time in kept.items():
        assert path.stat().st_mtime_ns == time or path.name == "plan.json"
    _, told = plan(*given, "--seeds", "1", "2")
    assert "2 of 4 runs are new" in told
    assert "fold_01-scratch-s2" in (out / "Makefile").read_text()
    told = plan(folds, "--template", template, "--steps", "5", ok=False)
    assert "fold_00-scratch-s1 is there with another input: training/numb_steps is 4" in told
    _, told = plan(*given, "--seeds", "2")
    assert "are no part of this one: fold_00-scratch-s1, fold_01-scratch-s1" in told


def test_a_plan_is_of_one_split(plan, folds, template, make_folds, tmp_path):
    plan(folds, "--template", template)
    other = make_folds(tmp_path / "other", ("a",))
    told = plan(other / "a", "--template", template, ok=False)
    assert f"is a plan of {folds}, not of {other / 'a'}" in told
    _, told = plan(folds / "fold_00", folds / "fold_01", "--template", template)
    assert "0 of 2 runs are new" in told


def test_one_split_without_folds(plan, folds, template):
    out, _ = plan(folds / "fold_00", "--template", f"a={template}", "--seeds", "1", "2")
    assert list(read(out / "plan.json")["runs"]) == ["a-s1", "a-s2"]
    assert "--split ../../folds/fold_00 " in (out / "a-s1" / "run.sh").read_text()


def test_auxiliary_data_go_to_the_templates_with_branches(
    plan, folds, template, pretrained, tmp_path
):
    mft = tmp_path / "input_mft.json"
    mft.write_text(json.dumps(mft_input()))
    ft = tmp_path / "input_ft.json"
    ft.write_text(json.dumps(with_heads(single_input())))
    (tmp_path / "aux").symlink_to(DATA / "aux_valid")
    out, _ = plan(
        *(folds, "--template", template, ft, mft, "--checkpoint", pretrained, "--steps", "4"),
        *("--aux-train", tmp_path / "aux", "--share", "0.25"),
    )
    training = read(out / "fold_01-mft-s1" / "input.json")["training"]
    assert training["model_prob"] == {"GFN2": 0.75, "property": 0.25}
    aux = training["data_dict"]["GFN2"]["training_data"]["systems"]
    assert (out / "fold_01-mft-s1" / aux).resolve() == (DATA / "aux_valid").resolve()
    assert "model_prob" not in read(out / "fold_01-ft-s1" / "input.json")["training"]


def test_a_filled_input_keeps_its_auxiliary_data(plan, folds, pretrained, tmp_path):
    """Its relative paths start in its own folder."""
    config = mft_input()
    (tmp_path / "filled").mkdir()
    (tmp_path / "filled" / "aux").symlink_to(DATA / "aux_valid")
    for part in config["training"]["data_dict"]["GFN2"].values():
        part["systems"] = "aux"
    (tmp_path / "filled" / "input.json").write_text(json.dumps(config))
    out, _ = plan(
        *(folds, "--template", f"mft={tmp_path / 'filled' / 'input.json'}"),
        *("--checkpoint", pretrained),
    )
    data = read(out / "fold_00-mft-s1" / "input.json")["training"]["data_dict"]["GFN2"]
    aux = data["training_data"]["systems"]
    assert aux == "../../filled/aux"


def test_references_go_by_the_folder_of_their_template(tmp_path):
    """Also of one branch; what is not there stays, to be told by the checks."""
    (tmp_path / "start.pt").touch()
    for text, expected in (
        ("start.pt", str(tmp_path / "start.pt")),
        ("start.pt:GFN2", str(tmp_path / "start.pt:GFN2")),
        ("none.pt:GFN2", "none.pt:GFN2"),
    ):
        config = single_input()
        config["loss"]["regularizers"] = [{"type": "l2_sp", "weight": 1.0, "reference": text}]
        (tmp_path / "input.json").write_text(json.dumps(config))
        (found,), _ = read_strategies([str(tmp_path / "input.json")], None)
        assert found.config["loss"]["regularizers"][0]["reference"] == expected


def test_a_filled_input_says_its_checkpoint(plan, folds, template, pretrained, tmp_path):
    """Also a copy with other lists, beside it; one that has changed is not taken."""
    copy = shutil.copy(pretrained, tmp_path / "start.pt")
    template.write_text(json.dumps(with_heads(single_input())))
    words = ["input", template, "--checkpoint", copy, "--no-tighten", "--train", DATA / "train"]
    filled = tmp_path / "ft.json"
    assert main([*map(str, words), "--valid", str(DATA / "valid"), "-o", str(filled)]) == 0
    out, told = plan(folds, "--template", filled)
    assert f"ft: from {copy}" in told
    assert "--finetune ../../start.pt" in (out / "fold_00-ft-s1" / "run.sh").read_text()

    config = read(filled)
    config["_dp_mft_input"]["checkpoint"] = "elsewhere/start.pt"
    filled.write_text(json.dumps(config))
    plan(folds, "--template", filled, out=tmp_path / "again")

    Path(copy).write_bytes(b"another")
    told = plan(folds, "--template", filled, out=tmp_path / "third", ok=False)
    assert "elsewhere/start.pt, which is not there any more, or has changed" in told


def test_every_draw_gets_the_seed():
    config = mft_input()
    config["training"].pop("seed")
    config["model"]["model_dict"]["property"]["fitting_net"].pop("seed")
    found = with_seed(config, 9)
    assert found["training"]["seed"] == 9
    assert found["model"]["shared_dict"]["dpa3_descriptor"]["seed"] == 9
    assert {one["fitting_net"]["seed"] for one in found["model"]["model_dict"].values()} == {9}
    assert config["model"]["shared_dict"]["dpa3_descriptor"]["seed"] == 1


def test_another_network_from_scratch_is_told(plan, folds, pretrained, tmp_path):
    other = single_input()
    other["model"]["descriptor"]["repflow"]["nlayers"] = 1
    for name, config in (("input_a.json", other), ("ft.json", with_heads(single_input()))):
        (tmp_path / name).write_text(json.dumps(config))
    templates = [tmp_path / "input_a.json", tmp_path / "ft.json"]
    _, told = plan(folds, "--template", *templates, "--checkpoint", pretrained)
    assert "a trains another network from scratch: repflow/nlayers 1 (the checkpoint 2)" in told


def test_templates_and_checkpoint_go_together(plan, folds, template, pretrained, tmp_path):
    ft = tmp_path / "ft.json"
    ft.write_text(json.dumps(with_heads(single_input())))
    for words, message in (
        ([template, "--checkpoint", pretrained], "none has finetune_head"),
        ([ft], "has finetune_head, so it starts from a checkpoint: give --checkpoint"),
        ([ft, "--checkpoint", tmp_path / "none.pt"], "none.pt"),
        ([tmp_path / "none.json"], "none.json does not exist"),
        ([template, template], "are both called scratch"),
        ([f"a b={template}"], "'a b' becomes part of the names of folders"),
        ([template, "--seeds", "1", "1"], "give different numbers"),
        ([template, "--property", "homo"], "the labels there are: gap"),
    ):
        told = plan(folds, "--template", *words, ok=False)
        assert message in told
        assert "Traceback" not in told
    assert not (tmp_path / "plan").exists()
    with pytest.raises(Exception, match="finetune_head"):
        read_strategies([str(ft)], None)


def test_what_is_no_folds(plan, folds, template, tmp_path):
    (tmp_path / "empty").mkdir()
    shutil.rmtree(folds / "fold_01" / "val")
    for place, message in (
        (tmp_path / "nowhere", "nowhere is not a folder"),
        (tmp_path / "empty", "empty has no data to train on"),
        (DATA / "train", "has no data to train on"),
        (folds, "fold_01 has no data to choose checkpoints by"),
    ):
        assert message in plan(place, "--template", template, ok=False)
    (folds / "fold_01").rename(folds / "fold 1")
    shutil.copytree(folds / "fold_00", folds / "fold_1")
    shutil.copytree(folds / "fold_00" / "val", folds / "fold 1" / "val")
    told = plan(folds, "--template", template, ok=False)
    assert "folds 'fold 1' and 'fold_1' would both be called fold_1-scratch-s1" in told


def test_folds_of_different_properties(plan, folds, template):
    for path in (folds / "fold_01").rglob("gap.npy"):
        path.rename(path.with_name("homo.npy"))
    told = plan(folds, "--template", template, ok=False)
    assert "learn different properties: fold_00-scratch-s1 learns gap; fold_01" in told


def test_a_mistake_shows_before_anything_is_written(plan, folds, template, tmp_path):
    path = next((folds / "fold_01" / "train").rglob("gap.npy"))
    gap = np.load(path)
    gap[0] = np.nan
    np.save(path, gap)
    told = plan(folds, "--template", template, ok=False)
    assert "nothing is written, since these trainings would fail" in told
    assert "fold_01-scratch-s1:" in told
    assert "fold_00-scratch-s1:" not in told
    assert not (tmp_path / "plan").exists()


def test_what_is_not_a_plan_is_left_alone(plan, folds, template, tmp_path):
    (tmp_path / "plan").mkdir()
    (tmp_path / "plan" / "notes.txt").write_text("mine")
    assert "was not written by dp-mft plan" in plan(folds, "--template", template, ok=False)
    (tmp_path / "plan" / "notes.txt").unlink()
    out, _ = plan(folds, "--template", template)
    (out / "fold_00-scratch-s1" / "input.json").unlink()
    assert "is there, without an input.json" in plan(folds, "--template", template, ok=False)
