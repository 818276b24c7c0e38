"""The faster DPA-3 against deepmd-kit's own."""

import copy
import logging
from dataclasses import dataclass

import pytest
import torch
from deepmd.pt.model.descriptor.repflows import DescrptBlockRepflows
from deepmd.pt.utils import env

from deepmd_mft.backbones import fast_dpa3, switch
from deepmd_mft.backbones.fast_dpa3 import FastRepflows
from deepmd_mft.errors import UserError
from tests.backbones.factory import (
    Case,
    assert_freezes,
    assert_same_file,
    assert_same_single_backward,
    assert_same_training,
)
from tests.helpers.models import NETS, build_head, build_property, frame

#: The published update options, on a small network.
PUBLISHED = {
    "n_dim": 10,
    "e_dim": 6,
    "a_dim": 4,
    "nlayers": 3,
    "e_rcut": 6.0,
    "e_rcut_smth": 5.3,
    "e_sel": 1200,
    "a_rcut": 4.0,
    "a_rcut_smth": 3.5,
    "a_sel": 300,
    "axis_neuron": 4,
    "fix_stat_std": 0.3,
    "a_compress_rate": 1,
    "a_compress_e_rate": 2,
    "a_compress_use_split": True,
    "update_angle": True,
    "smooth_edge_update": True,
    "use_dynamic_sel": True,
    "sel_reduce_factor": 10.0,
    "use_exp_switch": True,
    "update_style": "res_residual",
    "update_residual": 0.3,
    "update_residual_init": "const",
}
OPTIONS = {
    "tight selection": {"e_sel": 120, "a_sel": 30, "sel_reduce_factor": 1.0},
    "compressed": {"a_compress_use_split": False},
    "not compressed": {"a_compress_rate": 0, "a_compress_e_rate": 1},
    "polynomial switch": {"use_exp_switch": False},
    "from distances": {"edge_init_use_dist": True},
    "not optimised": {"optim_update": False},
    "two layers": {"nlayers": 2},
    "one layer": {"nlayers": 1},
    "random residuals": {"update_residual_init": "norm"},
}


def descriptor(activation="silut:3.0", precision="float64", **repflow):
    return {
        "type": "dpa3",
        "repflow": {**PUBLISHED, **repflow},
        "activation_function": activation,
        "precision": precision,
        "use_tebd_bias": False,
        "concat_output_tebd": False,
        "seed": 1,
    }


def put_in_place(model):
    switch.speed_up_models([model])
    assert isinstance(model.get_descriptor().repflows, FastRepflows)


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("activation", ["tanh", "silu", "silut:3.0", "custom_silu:0.2"])
@pytest.mark.parametrize("periodic", [False, True])
def test_forces_and_their_gradients(activation, precision, periodic):
    assert_same_training(Case(descriptor(activation, precision), put_in_place, periodic))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_options(options):
    assert_same_training(Case(descriptor("silut:1.0", **options), put_in_place))


def test_excluded_types_protection_and_extended_mapping():
    params = descriptor("tanh")
    params |= {"exclude_types": [[0, 1]], "env_protection": 1e-2, "use_loc_mapping": False}
    assert_same_training(Case(params, put_in_place, periodic=True))


@pytest.mark.parametrize("activation", ["tanh", "silut:3.0"])
def test_a_property_needs_one_backward_pass(activation):
    assert_same_single_backward(Case(descriptor(activation), put_in_place))


@pytest.mark.parametrize("periodic", [False, True])
def test_large_frames(periodic, monkeypatch):
    """They do without the dense matrices of directions."""
    monkeypatch.setattr(fast_dpa3, "DENSE_UP_TO", 0)
    assert_same_training(Case(descriptor("tanh"), put_in_place, periodic))


@dataclass
class Pairs(Case):
    """Two frames of two atoms, so far apart."""

    distance: float = 0.0

    def frames(self):
        coord = torch.zeros(2, 2, 3, dtype=torch.float64)
        coord[:, 1, 0] = torch.tensor([self.distance, self.distance + 0.1])
        return coord.to(env.DEVICE), torch.tensor([[0, 1], [2, 2]]).to(env.DEVICE), None


@pytest.mark.parametrize("distance", [1.1, 5.0, 50.0], ids=["angles", "edges", "nothing"])
@pytest.mark.parametrize("activation", ["tanh", "silut:3.0"])
def test_a_batch_with_few_neighbours_or_none(activation, distance):
    case = Pairs(descriptor(activation), put_in_place, distance=distance)
    assert_same_training(case)
    assert_same_single_backward(case)


def test_states_are_interchangeable():
    assert_same_file(Case(descriptor(), put_in_place))


def test_freezing_is_deepmd_kits():
    assert_freezes(Case(descriptor("silut:1.0"), put_in_place, periodic=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("activation", ["tanh", "silut:3.0"])
def test_on_a_gpu(activation):
    # deepmd-kit chooses the device for the whole process: that of every test above
    assert_same_training(Case(descriptor(activation, "float32"), put_in_place, periodic=True))


def frames(natoms=8):
    generator = torch.Generator().manual_seed(2)
    coord = 3.0 * torch.rand(2, natoms, 3, generator=generator, dtype=torch.float64)
    return coord, torch.randint(0, 3, (2, natoms), generator=generator), None


def test_the_equivariant_head_keeps_the_last_edges():
    net = NETS["dipole_norm"]
    expected = build_head(net, descriptor())
    found = copy.deepcopy(expected)
    switch.speed_up_models([found])
    assert found.get_descriptor().repflows.equivariant
    values = [model(*frames())["mu"] for model in (expected, found)]
    torch.testing.assert_close(values[1], values[0], rtol=1e-12, atol=0)
    for model, value in zip((expected, found), values, strict=True):
        value.sum().backward()
        assert model.get_descriptor().repflows.layers[-1].e_residual[0].grad is not None
    for one, other in zip(expected.parameters(), found.parameters(), strict=True):
        if one.grad is not None:
            torch.testing.assert_close(other.grad, one.grad, rtol=1e-9, atol=1e-12)


def test_an_invariant_head_does_not():
    model = build_property()
    switch.speed_up_models([model])
    assert not model.get_descriptor().repflows.equivariant


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"sequential_update": True}, "sequential_update"),
        ({"n_multi_edge_message": 2}, "n_multi_edge_message"),
        ({"use_dynamic_sel": False}, "use_dynamic_sel"),
        ({"update_style": "res_avg"}, "update_style"),
        ({"update_angle": False}, "update_angle"),
    ],
)
def test_options_that_are_not_covered_are_left_to_deepmd_kit(options, reason, caplog):
    model = build_head(NETS["spatial_extent"], descriptor(**options))
    with caplog.at_level(logging.WARNING):
        switch.speed_up_models([model])
    assert type(model.get_descriptor().repflows) is DescrptBlockRepflows
    assert reason in caplog.text


def test_an_activation_function_that_is_not_covered(caplog):
    model = build_head(NETS["spatial_extent"], descriptor("relu"))
    with caplog.at_level(logging.WARNING):
        switch.speed_up_models([model])
    assert "activation_function relu" in caplog.text


def test_a_precision_that_numpy_does_not_have(caplog):
    model = build_head(NETS["spatial_extent"], descriptor(precision="bfloat16"))
    coord, atype, _ = frame()
    expected = model(coord, atype)["r2"]
    with caplog.at_level(logging.WARNING):
        switch.speed_up_models([model])
    assert "precision bfloat16 is not covered" in caplog.text
    torch.testing.assert_close(model(coord, atype)["r2"], expected)


def test_the_switch(monkeypatch, caplog):
    monkeypatch.setenv("DP_MFT_FAST", "0")
    model = build_property()
    with caplog.at_level(logging.WARNING):
        switch.speed_up_models([model])
    assert type(model.get_descriptor().repflows) is DescrptBlockRepflows
    assert "DP_MFT_FAST=0" in caplog.text


def test_another_release_is_left_alone(monkeypatch, caplog):
    monkeypatch.setattr(switch, "deepmd_version", "3.9.9")
    model = build_property()
    with caplog.at_level(logging.WARNING):
        switch.speed_up_models([model])
    assert type(model.get_descriptor().repflows) is DescrptBlockRepflows
    assert "3.9.9 was not compared" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"e_sel": 5, "a_sel": 5}, "7 neighbours within 6 Angstrom, but e_sel keeps only"),
        ({"e_sel": 40, "a_sel": 3}, "7 neighbours within 4 Angstrom, but a_sel keeps only"),
    ],
)
def test_neighbours_that_do_not_fit_are_told(options, message):
    model = build_head(NETS["spatial_extent"], descriptor(**options))
    switch.speed_up_models([model])
    coord, atype, _ = frames()
    with pytest.raises(UserError, match=message):
        model(0.5 * coord, atype)


def test_a_selection_that_is_just_full():
    native = build_head(NETS["spatial_extent"], descriptor(e_sel=7, a_sel=7))
    ours = copy.deepcopy(native)
    switch.speed_up_models([ours])
    coord, atype, _ = frames()
    torch.testing.assert_close(ours(0.5 * coord, atype)["r2"], native(0.5 * coord, atype)["r2"])


def test_second_derivatives_in_parameters_are_refused():
    model = build_property()
    switch.speed_up_models([model])
    coord, atype, _ = frames()
    matrix = model.get_descriptor().repflows.layers[0].node_edge_linear.matrix
    value = model(coord, atype)["gap"].sum()
    (grad,) = torch.autograd.grad(value, [matrix], create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivatives"):
        grad.square().sum().backward()


def test_without_a_graph():
    native = build_property()
    ours = copy.deepcopy(native)
    switch.speed_up_models([ours])
    with torch.no_grad():
        torch.testing.assert_close(ours(*frames())["gap"], native(*frames())["gap"])
