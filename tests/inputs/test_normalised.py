"""The checks read the input with its defaults, and take equal things for equal."""

import copy
import json

import numpy as np
import pytest

from deepmd_mft.cli import main
from deepmd_mft.errors import UserError
from tests.helpers.dp import DATA, mft_input, pretrain_input, single_input
from tests.helpers.gate import run_gate
from tests.helpers.systems import write_system

N = 3


def force_field(tmp_path, loss, **labels):
    """The input of a force field alone on a system with given labels."""
    system = write_system(tmp_path / "system", nframes=N, **labels)
    config = pretrain_input()
    config["loss_dict"]["GFN2"] = {"type": "mft_force_field", **loss}
    part = {"systems": str(system), "batch_size": 1}
    config["training"]["data_dict"]["GFN2"] = {"training_data": part}
    return config


ENERGY = {"energy": np.zeros((N, 1))}
FORCE = {"force": np.ones((N, 15))}


@pytest.mark.parametrize(
    ("loss", "labels", "missing"),
    [
        ({}, ENERGY, "force"),  # deepmd-kit's default prefactors of energy and force are not 0
        ({}, FORCE, "energy"),
        ({"start_pref_v": 0.02, "limit_pref_v": 1.0}, ENERGY | FORCE, "virial"),
        ({"start_pref_ae": 1, "limit_pref_ae": 1}, ENERGY | FORCE, "atom_ener"),
        ({"start_pref_e": 1, "limit_pref_e": 1, "start_pref_f": 0, "limit_pref_f": 0}, ENERGY, ""),
        ({"start_pref_v": 0, "limit_pref_v": 0}, ENERGY | FORCE, ""),
    ],
)
def test_every_label_that_a_force_field_weighs_is_needed(tmp_path, loss, labels, missing):
    config = force_field(tmp_path, loss, **labels)
    if not missing:
        run_gate(config, tmp_path)
        return
    with pytest.raises(UserError, match=rf"{missing}\.npy does not exist"):
        run_gate(config, tmp_path)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (ENERGY | {"force": np.ones((N, 12))}, r"12 numbers per frame, but 15 are needed for 5"),
        (ENERGY | {"force": np.full((N, 15), np.nan)}, "NaN or inf in 3 of 3 rows"),
        (FORCE | {"energy": np.array([[1.0], [np.inf], [2.0]])}, "row 1, counted from 0"),
    ],
)
def test_force_field_labels_are_looked_at(tmp_path, labels, message):
    with pytest.raises(UserError, match=message):
        run_gate(force_field(tmp_path, {}, **labels), tmp_path)


def test_frame_parameters_are_needed_too(tmp_path):
    config = single_input()
    config["model"]["fitting_net"]["numb_fparam"] = 2
    with pytest.raises(UserError, match=r"fparam\.npy does not exist, but the fitting net needs"):
        run_gate(config, tmp_path)
    config["model"]["fitting_net"]["default_fparam"] = [0.0, 1.0]
    run_gate(config, tmp_path)


@pytest.mark.parametrize(
    ("net", "loss"),
    [
        ({}, {"property_name": None, "task_dim": None}),  # inputs of DeePMD-kit 3.1
        ({"property_name": ["gap"], "task_dim": [1]}, {"property_name": "gap"}),
        ({}, {"property_name": ["gap"], "task_dim": 1, "weight": [2.0]}),
    ],
)
def test_what_means_the_same_is_the_same(tmp_path, net, loss):
    config = single_input()
    config["model"]["fitting_net"] |= net
    config["loss"] = {k: v for k, v in (config["loss"] | loss).items() if v is not None}
    run_gate(config, tmp_path)


def test_properties_in_another_order_are_not_the_same(tmp_path):
    config = single_input()
    config["model"]["fitting_net"] |= {"property_name": ["gap", "homo"]}
    config["loss"]["property_name"] = ["homo", "gap"]
    with pytest.raises(UserError, match=r"property_name is .* make them equal, or leave it out"):
        run_gate(config, tmp_path)


@pytest.mark.parametrize(("part", "key"), [("fitting_net", "intensive"), ("loss", "weight")])
def test_lists_of_the_wrong_length(tmp_path, part, key):
    config = single_input()
    names = {"property_name": ["gap", "homo", "lumo"]}
    config["model"]["fitting_net"] |= names
    config["loss"] |= names
    target = config["loss"] if part == "loss" else config["model"]["fitting_net"]
    target[key] = [1.0, 2.0] if part == "loss" else [True, False]
    with pytest.raises(UserError, match=f"{key} has 2 entries for 3 properties"):
        run_gate(config, tmp_path)


def check(tmp_path, capsys, config, *arguments):
    path = tmp_path / "input.json"
    path.write_text(json.dumps(config))
    main(["check", str(path), "--json", *map(str, arguments)])
    return json.loads(capsys.readouterr().out)


def test_check_without_property_name(tmp_path, capsys):
    config = mft_input()
    del config["model"]["model_dict"]["property"]["fitting_net"]["property_name"]
    (error,) = check(tmp_path, capsys, config)["errors"]
    assert "model_dict/property/fitting_net" in error
    assert "property_name" in error


def test_memory_with_descriptor_defaults(tmp_path, capsys):
    """Keys left out have deepmd-kit's values, not values of our own."""
    config, given = single_input(), single_input()
    for key, value in {"n_dim": 128, "e_dim": 64, "a_dim": 64, "nlayers": 6}.items():
        del config["model"]["descriptor"]["repflow"][key]
        given["model"]["descriptor"]["repflow"][key] = value
    left_out, written = (check(tmp_path, capsys, one)["facts"] for one in (config, given))
    assert left_out == written
    assert left_out["memory_gib"] > 0


def test_native_loss_with_default_prefactors(tmp_path, capsys):
    config = mft_input()
    config["loss_dict"]["GFN2"] = {"type": "ener"}
    system = write_system(tmp_path / "energies", nframes=4, energy=np.zeros((4, 1)))
    config["training"]["data_dict"]["GFN2"]["training_data"]["systems"] = str(system)
    found = check(tmp_path, capsys, config)
    assert not found["errors"]
    assert any("without force.npy" in text for text in found["warnings"])


def test_shared_entries_are_resolved_once(tmp_path, capsys):
    """`out.json` of a multi-task run holds everything in its branches."""
    from deepmd_mft.inputs.branches import normalised, read_branches

    full = normalised(copy.deepcopy(mft_input()))
    again = read_branches(normalised(full))
    assert [branch.name for branch in again] == ["GFN2", "property"]
    assert again[1].model["type_map"] == ["H", "C", "N", "O", "F"]
    assert check(tmp_path, capsys, full)["errors"] == []


def test_yaml_that_is_none(tmp_path, capsys):
    path = tmp_path / "input.yaml"
    path.write_text("model: [")
    assert main(["check", str(path)]) == 1
    assert "is not JSON or YAML" in capsys.readouterr().out


def test_other_processes_of_a_training_do_not_check(tmp_path, monkeypatch):
    config = single_input()
    config["training"]["training_data"]["systems"] = str(DATA / "nowhere")
    with pytest.raises(UserError, match="nowhere"):
        run_gate(config, tmp_path)
    monkeypatch.setenv("RANK", "1")
    run_gate(config, tmp_path)
