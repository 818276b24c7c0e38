"""Bad input gets one clear message before the first step."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from deepmd_mft.errors import UserError
from tests.helpers.dp import DESCRIPTOR, PROPERTY_NET, mft_input, single_input
from tests.helpers.gate import run_gate
from tests.helpers.models import save_checkpoint


@pytest.fixture
def check(tmp_path, copied_data):
    """Check an input whose data is a private copy; the second argument edits it."""

    def run(config, finetune=None):
        text = json.dumps(config)
        for name in ("train", "valid", "aux_valid"):
            source = Path(__file__).parents[2] / "examples" / "qm9_gap" / "data"
            text = text.replace(str(source / name), str(copied_data / name))
        run_gate(json.loads(text), tmp_path, finetune=finetune)

    return run


def a_set(system):
    return sorted(system.glob("**/set.*"))[0]


def test_a_sound_input_passes(check, pretrained):
    check(single_input())
    check(mft_input(), finetune=str(pretrained))


def test_property_file_missing(check, copied_data):
    (a_set(copied_data / "train") / "gap.npy").unlink()
    with pytest.raises(UserError, match=r"gap\.npy does not exist, but the loss needs gap"):
        check(single_input())


def test_validation_labels_are_checked_too(check, copied_data):
    (a_set(copied_data / "valid") / "gap.npy").unlink()
    with pytest.raises(UserError, match=r"valid/.*gap\.npy does not exist"):
        check(single_input())


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda labels: labels[:-3], r"rows, but the set has"),
        (lambda labels: np.hstack([labels, labels]), r"has 2 column\(s\), but the head expects 1"),
        (lambda labels: np.where(np.arange(len(labels))[:, None] == 4, np.nan, labels), "row 4"),
        (lambda labels: np.where(labels > 0, np.inf, labels), "NaN or inf"),
    ],
)
def test_property_file_broken(check, copied_data, edit, message):
    path = a_set(copied_data / "train") / "gap.npy"
    np.save(path, edit(np.load(path)))
    with pytest.raises(UserError, match=message) as caught:
        check(single_input())
    assert str(path) in str(caught.value)


def test_property_file_truncated(check, copied_data):
    path = a_set(copied_data / "train") / "gap.npy"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="is no array of numbers"):
        check(single_input())


def test_element_outside_the_type_map(check):
    config = single_input()
    config["model"]["type_map"] = ["H", "C", "N", "O"]
    with pytest.raises(UserError, match=r"type_map.raw lists F, which type_map of the model"):
        check(config)


def test_element_outside_the_type_map_of_many_systems(check):
    config = mft_input()
    config["model"]["shared_dict"]["type_map_all"] = ["H", "C", "N", "O"]
    del config["model"]["model_dict"]["property"]
    with pytest.raises(UserError, match=r"and 2 more systems list F, which type_map of the model"):
        check(config)


def test_force_labels_missing_in_the_auxiliary_set(check, copied_data):
    (a_set(copied_data / "aux_valid") / "force.npy").unlink()
    with pytest.raises(UserError, match=r"branch 'GFN2': .*force\.npy does not exist"):
        check(mft_input())


@pytest.mark.parametrize(("key", "value"), [("property_name", "homo"), ("task_dim", 2)])
def test_loss_and_fitting_net_differ(check, key, value):
    config = mft_input()
    config["loss_dict"]["property"][key] = value
    with pytest.raises(UserError, match=f"branch 'property': {key} is .* make them equal"):
        check(config)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c["model"]["model_dict"]["property"].pop("type"), 'needs "type": "mft"'),
        (lambda c: c["loss_dict"]["property"].update(type="ener"), "needs a loss of type"),
        (lambda c: c["loss_dict"].pop("GFN2"), "no entry in loss_dict"),
        (lambda c: c["training"]["data_dict"].pop("property"), "no entry in data_dict"),
        (
            lambda c: c["model"]["model_dict"]["GFN2"].update(fitting_net={"type": "dos"}),
            "belongs to an energy fitting net",
        ),
        (
            lambda c: c["model"]["model_dict"]["GFN2"]["fitting_net"].update(dim_case_embd=31),
            r"dim_case_embd must be equal .*GFN2: 31, property: 0",
        ),
        (lambda c: c["model"]["shared_dict"].pop("type_map_all"), "type_map_all"),
        (
            lambda c: c["training"]["data_dict"]["property"]["training_data"].update(
                systems=["nowhere"]
            ),
            "nowhere",
        ),
    ],
)
def test_parts_that_do_not_fit(check, edit, message):
    config = mft_input()
    edit(config)
    with pytest.raises(UserError, match=message):
        check(config)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ({"type": "mft_property", "beta": -1.0}, "`beta` .* must be at least 0"),
        (
            {"type": "mft_classification", "class_weights": [-1.0, 1.0]},
            "`class_weights` .* must be at least 0",
        ),
    ],
)
def test_numbers_below_zero(check, loss, message):
    config = single_input()
    config["loss"] = loss
    config["model"]["fitting_net"] = {"type": loss["type"], "property_name": "gap"}
    with pytest.raises(UserError, match=message):
        check(config)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda net: net.pop("property_name"), "property_name"),
        (lambda net: net.update(neurons=[8]), "neurons"),
        (lambda net: net.update(task_dim="one"), "task_dim"),
        (lambda net: net.update(readout="median"), "must be one of mean, sum, max, attention"),
    ],
)
def test_schema_errors_name_their_place(check, edit, message):
    config = mft_input()
    edit(config["model"]["model_dict"]["property"]["fitting_net"])
    config["loss_dict"]["property"].pop("task_dim", None)
    with pytest.raises(UserError, match=message) as caught:
        check(config)
    assert "model_dict/property/fitting_net" in str(caught.value) or "make them equal" in str(
        caught.value
    )


def test_finetune_head_not_in_the_checkpoint(check, pretrained):
    config = mft_input()
    config["model"]["model_dict"]["GFN2"]["finetune_head"] = "SPICE2"
    with pytest.raises(UserError, match=r"finetune_head 'SPICE2' is not in .*; it has GFN2"):
        check(config, finetune=str(pretrained))


def test_case_embedding_differs_from_the_checkpoint(check, pretrained):
    config = mft_input()
    for branch in config["model"]["model_dict"].values():
        branch["fitting_net"]["dim_case_embd"] = 31
    with pytest.raises(UserError, match=r"dim_case_embd is 31, but 0 in head 'GFN2'"):
        check(config, finetune=str(pretrained))


def test_checkpoint_does_not_exist(check):
    with pytest.raises(UserError, match=r"nowhere\.pt does not exist"):
        check(mft_input(), finetune="nowhere.pt")


def test_checkpoint_truncated(check, pretrained, tmp_path):
    path = tmp_path / "cut.pt"
    path.write_bytes(pretrained.read_bytes()[:20000])
    with pytest.raises(UserError, match="cut off while copying"):
        check(mft_input(), finetune=str(path))


def test_checkpoint_of_another_program(check, tmp_path):
    path = tmp_path / "other.pt"
    torch.save({"weights": torch.zeros(3)}, path)
    with pytest.raises(UserError, match=r"is not a checkpoint of `dp --pt train`"):
        check(mft_input(), finetune=str(path))


def test_inputs_without_our_types_are_left_alone(check, copied_data):
    (a_set(copied_data / "train") / "gap.npy").unlink()
    config = single_input()
    config["model"].pop("type")
    config["model"]["fitting_net"]["type"] = "property"
    config["loss"] = {"type": "property"}
    check(config)


# --- masked labels, other heads -----------------------------------------------------------------


def masked(config):
    config["loss"]["missing_labels"] = "mask"
    return config


def test_masked_labels_may_be_missing_and_are_counted(check, copied_data, caplog):
    path = a_set(copied_data / "train") / "gap.npy"
    labels = np.load(path)
    labels[:7] = np.nan
    np.save(path, labels)
    with caplog.at_level("WARNING"):
        check(masked(single_input()))
    assert f"7 of {len(labels)} labels of property gap are missing and masked" in caplog.text


def test_a_property_without_any_label_is_refused(check, copied_data):
    (a_set(copied_data / "train") / "gap.npy").unlink()
    with pytest.raises(UserError, match="property 'gap' has no label at all in training_data"):
        check(masked(single_input()))


def test_inf_is_refused_even_if_masked(check, copied_data):
    path = a_set(copied_data / "train") / "gap.npy"
    labels = np.load(path)
    labels[3] = np.inf
    np.save(path, labels)
    with pytest.raises(UserError, match="has inf in 1 of"):
        check(masked(single_input()))


@pytest.mark.parametrize("head", ["mft_spatial_extent", "mft_dipole_norm"])
def test_heads_of_molecules_refuse_a_cell(check, copied_data, head):
    config = single_input()
    net = config["model"]["fitting_net"]
    net["type"] = head
    net.pop("intensive")
    check(config)
    (copied_data / "train" / "nopbc").unlink()
    with pytest.raises(UserError, match=f"has a periodic cell, but {head}"):
        check(config)


@pytest.mark.parametrize(("value", "shown"), [(5, "5"), (0.5, "0.5"), (-1, "-1")])
def test_class_labels_outside_the_range(check, copied_data, value, shown):
    config = single_input()
    net = {"type": "mft_classification", "property_name": "gap", "num_classes": 3}
    config["model"]["fitting_net"] = net
    config["loss"] = {"type": "mft_classification", "property_name": "gap", "num_classes": 3}
    for name in ("train", "valid"):
        path = a_set(copied_data / name) / "gap.npy"
        np.save(path, np.arange(len(np.load(path)))[:, None] % 3)
    check(config)
    labels = np.load(path)
    labels = labels.astype(float)
    labels[2] = value
    np.save(path, labels)
    with pytest.raises(UserError, match=f"has the label {shown}; with num_classes 3"):
        check(config)


def test_classification_needs_its_loss(check):
    config = single_input()
    config["model"]["fitting_net"] = {"type": "mft_classification", "property_name": "gap"}
    with pytest.raises(UserError, match='needs a loss of type "mft_classification"'):
        check(config)


# --- the model from the checkpoint ----------------------------------------------------------------


def test_use_pretrain_script(tmp_path, pretrained):
    """The checkpoint fills in the model; what is checked is the whole."""
    config = single_input()
    model = {key: config["model"][key] for key in ("type", "type_map", "fitting_net")}
    config["model"] = {**model, "finetune_head": "RANDOM"}
    options = {"use_pretrain_script": True, "model_branch": "", "finetune": str(pretrained)}
    run_gate(config, tmp_path, **options)
    config["loss"]["property_name"] = "homo"
    with pytest.raises(UserError, match="property_name is 'gap' in the fitting_net and 'homo'"):
        run_gate(config, tmp_path, **options)
    config["model"]["finetune_head"] = "SPICE2"
    with pytest.raises(UserError, match="SPICE2"):
        run_gate(config, tmp_path, **options)


@pytest.mark.parametrize("option", ["restart", "init_model"])
def test_checkpoints_as_deepmd_names_them(tmp_path, pretrained, option):
    run_gate(mft_input(), tmp_path, **{option: str(pretrained)})
    run_gate(mft_input(), tmp_path, **{option: str(pretrained.with_suffix(""))})
    with pytest.raises(UserError, match="does not exist"):
        run_gate(mft_input(), tmp_path, **{option: str(tmp_path / "model.ckpt")})


# --- weights that would mean something else -------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A single-task checkpoint of a property, as a restart needs it."""
    path = tmp_path_factory.mktemp("trained") / "model.ckpt.pt"
    save_checkpoint(path, type="mft", descriptor=DESCRIPTOR, fitting_net=PROPERTY_NET)
    state = torch.load(path, weights_only=True)
    torch.save({**state, "optimizer": {"state": {}}}, path)
    return path


def with_net(**options):
    config = single_input()
    config["model"]["fitting_net"] = {**PROPERTY_NET, **options}
    return config


def test_a_head_of_the_same_kind_is_inherited(tmp_path, trained):
    """What follows from other options, and what does not change the net, may be said otherwise."""
    for net in ({}, {"readout": "mean"}, {"task_dim": [1], "seed": 5, "bias": "mean"}):
        run_gate(with_net(**net), tmp_path, finetune=str(trained))
        run_gate(with_net(**net), tmp_path, restart=str(trained))


@pytest.mark.parametrize(
    ("net", "message"),
    [
        ({"neuron": [20, 20]}, r"neuron is \[20, 20\], in the checkpoint \[12, 12\]"),
        ({"activation_function": "gelu"}, "activation_function is gelu, in the checkpoint tanh"),
        ({"intensive": False}, "intensive is False, in the checkpoint True"),
        ({"readout": "attention"}, "readout is attention, in the checkpoint None"),
        ({"predict_variance": True}, "predict_variance is True, in the checkpoint False"),
    ],
)
def test_a_head_that_is_another_net(tmp_path, trained, net, message):
    with pytest.raises(UserError, match=rf"would inherit head 'Default' .*{message}"):
        run_gate(with_net(**net), tmp_path, finetune=str(trained))
    for option in ("restart", "init_model"):
        with pytest.raises(UserError, match=rf"goes on with the head .*{message}"):
            run_gate(with_net(**net), tmp_path, **{option: str(trained)})
    config = with_net(**net)
    config["model"]["finetune_head"] = "RANDOM"
    run_gate(config, tmp_path, finetune=str(trained))


def test_an_energys_head_is_no_propertys(tmp_path, pretrained):
    """deepmd-kit takes the only head over where finetune_head is left out; its shapes fit."""
    path = save_checkpoint(tmp_path / "energy.pt")
    with pytest.raises(UserError, match=r"'Default' of .*type is mft_property, in the .* ener"):
        run_gate(single_input(), tmp_path, finetune=str(path))
    config = mft_input()
    config["model"]["model_dict"]["property"]["finetune_head"] = "GFN2"
    with pytest.raises(UserError, match=r"branch 'property' would inherit head 'GFN2'"):
        run_gate(config, tmp_path, finetune=str(pretrained))
    run_gate(single_input(), tmp_path, finetune=str(pretrained))  # of several none is taken
    options = {"finetune": str(pretrained), "model_branch": "GFN2"}
    with pytest.raises(UserError, match="the model would inherit head 'GFN2'"):
        run_gate(single_input(), tmp_path, **options)
    with pytest.raises(UserError, match="--model-branch is for an input of one model"):
        run_gate(mft_input(), tmp_path, **options)


@pytest.mark.parametrize("option", ["restart", "init_model"])
def test_weights_go_by_the_places_of_the_elements(tmp_path, trained, option):
    config = single_input()
    config["model"]["type_map"] = ["C", "H", "N", "O", "F"]
    with pytest.raises(UserError, match=r"type_map is C H N O F, in .* H C N O F"):
        run_gate(config, tmp_path, **{option: str(trained)})
    run_gate({**config}, tmp_path, finetune=str(trained))


def test_a_head_is_held_to_the_one_that_it_starts_from(tmp_path, trained, pretrained):
    config = single_input()
    held = {"type": "l2_sp", "weight": 1.0, "reference": str(trained), "on": "all"}
    config["loss"]["regularizers"] = [held]
    run_gate(config, tmp_path, finetune=str(trained))
    config["model"]["finetune_head"] = "RANDOM"
    with pytest.raises(UserError, match=r'but it is a new one .* set "on": "backbone"'):
        run_gate(config, tmp_path, finetune=str(trained))


@pytest.mark.parametrize("name", ["HOMO.v2", "0", "layers", "items"])
def test_names_that_torch_or_deepmd_take_for_others(tmp_path, name):
    config = json.loads(json.dumps(mft_input()).replace('"property":', f'"{name}":'))
    with pytest.raises(UserError, match=f"branch '{name}' of model/model_dict: .* this name"):
        run_gate(config, tmp_path)
