"""Warnings that spare a run: branches without weight, stale heads, equal labels."""

import copy
import json
import shutil

import numpy as np
import pytest
import torch

from deepmd_mft.inputs.branches import Branch, normalised, read_branches
from deepmd_mft.inputs.findings import Findings
from deepmd_mft.inputs.gate import check_all
from deepmd_mft.inputs.idle import check_constant, check_heads, no_weight
from tests.helpers.dp import DATA, mft_input, pretrain_input
from tests.helpers.models import save_checkpoint
from tests.helpers.systems import write_system


def warnings(config, checkpoint=None):
    findings = Findings(stop=False)
    check_all(config, {"finetune": checkpoint} if checkpoint else {}, findings)
    assert findings.errors == []
    return [text for text in findings.warnings if "no effect" in text or "nothing to" in text]


@pytest.fixture
def replay(tmp_path):
    """Labels that a teacher made, as `dp-mft replay` records it."""
    shutil.copytree(DATA / "aux_valid", tmp_path / "replay" / "1")
    record = tmp_path / "replay" / "dataset.json"
    record.write_text(json.dumps({"teacher": {"kind": "pretrained"}}))
    return tmp_path / "replay"


def replayed(replay, **loss):
    config = mft_input()
    config["training"]["data_dict"]["GFN2"]["training_data"]["systems"] = str(replay)
    config["loss_dict"]["GFN2"] |= loss
    return config


def test_replayed_labels_without_weight(replay):
    assert warnings(replayed(replay)) == []
    (told,) = warnings(replayed(replay, lambda_reg=0))
    assert "branch 'GFN2' has no effect on the training: lambda_reg of its loss is 0" in told
    assert f"those of a teacher ({replay / 'dataset.json'})" in told
    config = replayed(replay)
    config["training"]["model_prob"] = {"GFN2": 0.0, "property": 1.0}
    (told,) = warnings(config)
    assert "its share (training/model_prob) is 0" in told
    prefactors = [f"{end}_pref_{kind}" for kind in "efv" for end in ("start", "limit")]
    (told,) = warnings(replayed(replay, **dict.fromkeys(prefactors, 0)))
    assert "the prefactors of its loss are 0" in told
    (replay / "dataset.json").write_text("{}")
    (told,) = warnings(replayed(replay, lambda_reg=0))
    assert "teacher" not in told


@pytest.mark.parametrize(
    ("loss", "why"),
    [
        ({"start_pref": 1.0, "limit_pref": 0.0}, ""),
        ({"start_pref": 0.0, "limit_pref": 0.0}, "prefactors"),
        ({"start_pref": 0, "limit_pref": 0, "regularizers": [{"weight": 1.0}]}, ""),
        ({"weight": [0.0, 0.0]}, "weight"),
        ({"weight": [0.0, 1.0]}, ""),
        ({"lambda_reg": 0.0, "start_pref_e": 1.0}, "lambda_reg"),
        ({"type": "mft_classification"}, ""),
    ],
)
def test_losses_without_weight(loss, why):
    assert (why in no_weight(loss)) if why else no_weight(loss) == ""


def test_an_auxiliary_task_whose_labels_are_all_the_same(tmp_path):
    same = write_system(tmp_path / "same", nframes=3, cheap=np.full((3, 1), 0.25))
    config = mft_input()
    model = copy.deepcopy(config["model"]["model_dict"]["property"])
    model["fitting_net"]["property_name"] = "cheap"
    model["finetune_head"] = "RANDOM"
    config["model"]["model_dict"]["cheap"] = model
    config["loss_dict"]["cheap"] = {"type": "mft_property"}
    config["training"]["data_dict"]["cheap"] = {"training_data": {"systems": str(same)}}
    config["training"]["model_prob"] = {"GFN2": 0.3, "property": 0.4, "cheap": 0.3}
    (told,) = warnings(config)
    assert "branch 'cheap': cheap is 0.25 in all 3 training structures" in told
    assert str(same) in told


def test_a_constant_component():
    values = np.random.default_rng(0).normal(size=(200, 3))
    values[:, 1] = 0.25
    values[0, 0] = np.nan
    findings = Findings(stop=False)
    branch = Branch("x", {}, {}, {"training_data": {"systems": ["a", "b", "c", "d"]}})
    check_constant(branch, {"gap": values}, findings)
    (told,) = findings.warnings
    assert "branch 'x': gap[1] is 0.25 in all 200 training structures (gap in a, b, c, ...)" in told


# --- heads ----------------------------------------------------------------------------------------


def stale(config, checkpoint):
    findings = Findings(stop=False)
    check_heads(read_branches(normalised(config)), checkpoint, findings)
    return findings.warnings


def two_heads(path, change):
    """Write a checkpoint with two branches; of the second the descriptor is changed."""
    state = torch.load(save_checkpoint(path), weights_only=True)["model"]
    extra = state.pop("_extra_state")
    params = {"model_dict": dict.fromkeys(("GFN2", "old"), extra["model_params"])}
    found = {
        key.replace(".Default.", f".{name}."): value.clone()
        for name in ("GFN2", "old")
        for key, value in state.items()
    }
    change(found)
    torch.save({"model": {**found, "_extra_state": {**extra, "model_params": params}}}, path)
    return path


def inherits(head):
    config = mft_input()
    config["model"]["model_dict"]["GFN2"]["finetune_head"] = head
    return config


def test_a_head_that_the_last_training_did_not_train(tmp_path):
    checkpoint = two_heads(tmp_path / "model.pt", lambda _: None)
    run = pretrain_input()
    for section in (run["model"]["model_dict"], run["loss_dict"], run["training"]["data_dict"]):
        section["old"] = copy.deepcopy(section["GFN2"])
    run["training"]["model_prob"] = {"GFN2": 1.0, "old": 0.0}
    (tmp_path / "out.json").write_text(json.dumps(run))
    (told,) = stale(inherits("old"), checkpoint)
    assert "branch 'GFN2': the head 'old' of" in told
    assert "is stale: in the training that wrote it its share was 0" in told
    assert stale(inherits("GFN2"), checkpoint) == stale(inherits("RANDOM"), checkpoint) == []
    run["training"]["model_prob"] = {"GFN2": 0.5, "old": 0.5}
    (tmp_path / "out.json").write_text(json.dumps(run))
    assert stale(inherits("old"), checkpoint) == []
    (tmp_path / "out.json").write_text("no input")
    assert stale(inherits("old"), checkpoint) == []


def test_a_head_whose_backbone_is_another(tmp_path):
    def shift(weights):
        name = next(n for n in weights if ".old." in n and "repflows.layers.0" in n)
        weights[name] += 1.0

    checkpoint = two_heads(tmp_path / "model.pt", shift)
    config = inherits("GFN2")
    assert stale(config, checkpoint) == []
    config["model"]["model_dict"]["second"] = {
        **copy.deepcopy(config["model"]["model_dict"]["GFN2"]),
        "finetune_head": "old",
    }
    for section in (config["loss_dict"], config["training"]["data_dict"]):
        section["second"] = copy.deepcopy(section["GFN2"])
    (told,) = stale(config, checkpoint)
    assert "branch 'second': the head 'old'" in told
    assert "of its own, not with that of 'GFN2'" in told
    same = two_heads(tmp_path / "same.pt", lambda _: None)
    assert stale(config, same) == []
