"""The JSON schema: deepmd-kit's own messages, with their location."""

import pytest
from dargs.dargs import ArgumentError
from deepmd.utils.argcheck import normalize

from deepmd_mft.bridge.registration import native_arguments
from deepmd_mft.cli.doc import reference
from tests.helpers.dp import mft_input, single_input


def resolved(config):
    from deepmd.pt.utils.multi_task import preprocess_shared_params

    if "model_dict" in config["model"]:
        config["model"], _ = preprocess_shared_params(config["model"])
        return normalize(config, multi_task=True)
    return normalize(config)


def test_inputs_pass_and_defaults_are_filled():
    config = resolved(mft_input())
    branch = config["model"]["model_dict"]["property"]
    assert branch["fitting_net"]["predict_variance"] is False
    assert config["loss_dict"]["property"]["reduction"] == "mean"
    assert config["loss_dict"]["GFN2"]["lambda_reg"] == 1.0


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("fitting_net", "neurons", [8], "neurons"),
        ("fitting_net", "task_dim", "one", "task_dim"),
        ("fitting_net", "task_dim", 0, "at least 1"),
        ("fitting_net", "readout", "median", "must be one of mean, sum, max, attention"),
        ("fitting_net", "bias", "atom", "must be one of element, mean, none"),
        ("fitting_net", "property_name", "dipole", "taken by deepmd-kit"),
        ("loss", "loss_func", "l7", "must be one of smooth_mae"),
        ("loss", "metric", ["r7"], "must be a list of"),
        ("loss", "prefactor", 1.0, "prefactor"),
    ],
)
def test_a_mistake_is_named_with_its_place(section, key, value, message):
    config = single_input()
    part = config["loss"] if section == "loss" else config["model"]["fitting_net"]
    part[key] = value
    with pytest.raises(ArgumentError, match=message) as caught:
        resolved(config)
    assert section in str(caught.value)


def test_a_native_net_needs_no_other_change_than_its_type():
    config = single_input()
    native = [arg.name for arg in native_arguments("fitting", "property")]
    config["model"]["fitting_net"] |= {"distinguish_types": False, "task_dim": 1}
    net = resolved(config)["model"]["fitting_net"]
    assert set(native) <= set(net)


@pytest.mark.parametrize(
    ("loss", "keys"),
    [
        ({"type": "mft_property"}, ("property_name", "task_dim")),
        ({"type": "mft_classification"}, ("property_name", "num_classes")),
    ],
)
def test_a_loss_may_leave_out_what_its_head_says(loss, keys):
    """Inputs of DeePMD-kit 3.1 and 3.2 have no property_name in the loss."""
    config = single_input()
    config["loss"] = loss
    assert [resolved(config)["loss"][key] for key in keys] == [None, None]


def test_a_head_needs_its_property_name():
    config = single_input()
    del config["model"]["fitting_net"]["property_name"]
    with pytest.raises(ArgumentError, match="property_name"):
        resolved(config)


def test_another_fitting_net_in_an_mft_model_is_refused():
    config = single_input()
    config["model"]["fitting_net"]["type"] = "ener"
    with pytest.raises(ArgumentError, match="invalid choice"):
        resolved(config)


def test_negative_lambda_is_refused():
    config = mft_input()
    config["loss_dict"]["GFN2"]["lambda_reg"] = -1.0
    with pytest.raises(ArgumentError, match="must be at least 0"):
        resolved(config)


def test_every_option_has_a_doc_string():
    for name, text in reference().items():
        lines = text.splitlines()
        assert len(lines) > 5, name
        for number, line in enumerate(lines):
            if "argument path" in line:
                rest = " ".join(lines[number + 1 : number + 4]).strip()
                assert rest, f"{name}: {line.strip()} has no description"
