"""`dp-mft check` lists everything that is wrong; `dp-mft input` writes what passes it."""

import json
import shutil

import numpy as np
import pytest

from deepmd_mft.cli import main
from tests.helpers.descriptors import DPA2
from tests.helpers.dp import DATA, Dp, mft_input, single_input

NTRAIN = len(np.load(DATA / "train" / "set.000" / "gap.npy"))


@pytest.fixture
def check(tmp_path, copied_data, pretrained, capsys):
    """Check the MFT input over a private copy of the data; return its JSON."""

    def run(config=None, *arguments):
        text = json.dumps(config or mft_input())
        for name in ("train", "valid", "aux_valid"):
            text = text.replace(str(DATA / name), str(copied_data / name))
        text = text.replace(str(DATA / "aux_train"), str(copied_data / "aux_valid"))
        (tmp_path / "input.json").write_text(text)
        status = main(
            ["check", str(tmp_path / "input.json"), "--finetune", str(pretrained), "--json"]
            + [str(a) for a in arguments]
        )
        found = json.loads(capsys.readouterr().out)
        assert status == (1 if found["errors"] else 0)
        assert found["may_train"] == (not found["errors"])
        return found

    return run


def label(copied_data, edit):
    path = copied_data / "train" / "set.000" / "gap.npy"
    np.save(path, edit(np.load(path)))


def test_a_sound_input(check):
    found = check()
    assert not found["errors"]
    assert found["facts"]["property"]["frames"] == NTRAIN
    assert found["facts"]["property"]["epochs"] > 0
    assert found["facts"]["memory_gib"] > 0


def test_a_large_set_is_looked_at_in_part(check, monkeypatch):
    monkeypatch.setattr("deepmd_mft.inputs.audit.MOST", 300)
    found = check()
    assert not found["errors"]
    assert found["facts"]["GFN2"]["frames"] == 500
    told = "GFN2 training_data: 300 of 500 structures, drawn at random"
    assert any(text.startswith(told) for text in found["warnings"])


def test_all_errors_are_listed(check, copied_data):
    config = mft_input()
    config["model"]["model_dict"]["GFN2"]["finetune_head"] = "SPICE2"
    config["loss_dict"]["property"]["property_name"] = "homo"
    label(copied_data, lambda v: np.where(np.arange(len(v))[:, None] == 4, np.nan, v))
    next((copied_data / "aux_valid").glob("*/set.000/force.npy")).unlink()
    errors = "\n".join(check(config)["errors"])
    for part in ("finetune_head 'SPICE2'", "property_name is 'gap'", "row 4", "force.npy does not"):
        assert part in errors


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda v: np.full_like(v, 0.3), "there is nothing to learn"),
        (
            lambda v: np.where(np.arange(len(v))[:, None] == 7, 50.0, v),
            "robust standard deviations",
        ),
        (lambda v: v * 27.2114, "These look like eV"),
    ],
)
def test_labels_that_mislead(check, copied_data, edit, message):
    label(copied_data, edit)
    found = check()
    assert not found["errors"]
    assert any(message in text for text in found["warnings"])
    same_unit = any("are they in the same unit" in text for text in found["warnings"])
    assert same_unit == (message != "there is nothing to learn")


def test_neighbours_beyond_sel(check, pretrained, monkeypatch):
    config = mft_input()
    config["model"]["shared_dict"]["dpa3_descriptor"]["repflow"]["e_sel"] = 5
    found = check(config)
    assert any(
        "e_sel is 5" in text and "would stop there. `dp-mft tighten" in text
        for text in found["errors"]
    )
    monkeypatch.setenv("DP_MFT_FAST", "0")
    found = check(config)
    assert any(
        "e_sel is 5" in text and "farthest are dropped" in text for text in found["warnings"]
    )
    assert any("e_sel is 5, in the checkpoint 40" in text for text in found["errors"])


def test_neighbours_beyond_nsel_of_a_dpa2(tmp_path, capsys):
    """Each of its lists is looked at."""
    config = single_input()
    descriptor = {**DPA2, "repformer": {**DPA2["repformer"], "nsel": 3}}
    config["model"]["descriptor"] = descriptor
    (tmp_path / "input.json").write_text(json.dumps(config))
    main(["check", str(tmp_path / "input.json"), "--json"])
    found = json.loads(capsys.readouterr().out)
    texts = [text for text in found["warnings"] if "nsel" in text]
    expected = (("repinit", 4.0, 20), ("repformer", 3.0, 3))
    for text, (part, rcut, nsel) in zip(texts, expected, strict=True):
        assert f"within {part}/rcut {rcut} Angstrom, but {part}/nsel is {nsel}" in text
    assert {"largest_repinit/nsel", "largest_repformer/nsel"} <= found["facts"]["model"].keys()


def test_leakage(check, copied_data, tmp_path):
    shutil.copytree(copied_data / "train", tmp_path / "sets" / "id_test")
    found = check(None, "--test", tmp_path / "sets")
    assert any(
        f"{NTRAIN} of {NTRAIN} structures of id_test are in" in text for text in found["errors"]
    )


def test_element_only_in_the_test_set(check, copied_data):
    path = copied_data / "train" / "set.000" / "real_atom_types.npy"
    types = np.load(path)
    types[types == 4] = 3  # no F left
    np.save(path, types)
    assert any("has F" in text for text in check()["warnings"])


def test_structures_that_cannot_be_read(check, copied_data):
    path = copied_data / "train" / "set.000" / "coord.npy"
    path.write_bytes(path.read_bytes()[:200])
    assert any("cannot be read" in text for text in check()["errors"])


def test_input_that_is_no_json(tmp_path, capsys):
    path = tmp_path / "input.json"
    path.write_text("{")
    assert main(["check", str(path)]) == 1
    assert "is not JSON" in capsys.readouterr().out


def test_filled_template_trains(tmp_path, pretrained, capsys):
    template = tmp_path / "template.json"
    config = mft_input()
    config["model"]["shared_dict"]["type_map_all"] = ["H"]
    config["model"]["shared_dict"]["dpa3_descriptor"] = {"type": "dpa3"}
    text = json.dumps(config).replace("GFN2", "SPICE2")
    template.write_text(text)
    data = {"train": "train", "valid": "valid", "aux-train": "aux_valid", "aux-valid": "aux_valid"}
    folders = [word for k, v in data.items() for word in (f"--{k}", str(DATA / v))]
    out = tmp_path / "run" / "input.json"
    arguments = [str(template), "--checkpoint", str(pretrained), *folders, "-o", str(out)]
    assert main(["input", *arguments, "--temperature", "2", "--steps", "2"]) == 0
    filled = json.loads(out.read_text())
    assert filled["model"]["shared_dict"]["type_map_all"] == ["H", "C", "N", "O", "F"]
    prob = filled["training"]["model_prob"]
    assert prob["property"] / prob["GFN2"] == pytest.approx(np.sqrt(NTRAIN / 500), rel=1e-4)
    Dp(out.parent)("train", "input.json", "--skip-neighbor-stat", "--finetune", str(pretrained))
    assert main(["input", *arguments]) == 1
    assert "exists" in capsys.readouterr().err


def test_template_head_that_the_checkpoint_lacks(tmp_path, mft_run, capsys):
    template = tmp_path / "template.json"
    template.write_text(json.dumps(mft_input()).replace("GFN2", "SPICE2"))
    arguments = [str(template), "--checkpoint", str(mft_run / "model.ckpt-6.pt")]
    assert main(["input", *arguments, "-o", str(tmp_path / "input.json")]) == 1
    assert "has no head 'SPICE2'; it has GFN2, property" in capsys.readouterr().err


def test_template_of_a_single_task(tmp_path, pretrained, capsys):
    template = tmp_path / "template.json"
    template.write_text(json.dumps(single_input()))
    out = tmp_path / "run" / "input.json"
    arguments = [str(template), "--checkpoint", str(pretrained), "--train", str(DATA / "train")]
    assert main(["input", *arguments, "--stat-files", "stat", "--steps", "2", "-o", str(out)]) == 0
    training = json.loads(out.read_text())["training"]
    assert (training["stat_file"], training["numb_steps"]) == ("stat/model", 2)
    Dp(out.parent)("train", "input.json", "--skip-neighbor-stat", "--finetune", str(pretrained))
    for option in (
        ("--aux-train", str(DATA / "aux_valid")),
        ("--temperature", "2"),
        ("--share", "0.5"),
        ("--aux-head", "GFN2"),
    ):
        assert main(["input", *arguments, *option, "-o", str(tmp_path / "no.json")]) == 1
        assert f"no auxiliary branch (model_dict) for {option[1]}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("edit", "level", "message"),
    [
        (lambda c: c["training"]["training_data"].update(systems=[]), "errors", "no system found"),
        (lambda c: c["training"]["validation_data"].update(systems=""), "errors", "systems = ''"),
        (lambda c: c["model"].update(type_map=[]), "errors", "type_map is empty"),
        (lambda c: c["training"].update(numb_steps=0), "warnings", "numb_steps is 0"),
    ],
    ids=["no training systems", "no validation systems", "no elements", "no steps"],
)
def test_nothing_to_train_with(tmp_path, capsys, edit, level, message):
    config = single_input()
    edit(config)
    (tmp_path / "input.json").write_text(json.dumps(config))
    main(["check", str(tmp_path / "input.json"), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert any(message in text for text in found[level])


def test_a_folder_is_no_input(tmp_path, capsys):
    assert main(["check", str(tmp_path)]) == 1
    assert f"{tmp_path} is no file" in capsys.readouterr().out
