"""The model type mft against deepmd-kit's own property model, and its symmetries."""

import copy

import numpy as np
import pytest
import torch
from deepmd.pt.model.model import BaseModel, get_model

from deepmd_mft.errors import UserError
from tests.helpers.dp import DESCRIPTOR, PROPERTY_NET, TYPE_MAP
from tests.helpers.models import build_property, frame, with_statistics


@pytest.mark.parametrize("intensive", [True, False])
@pytest.mark.parametrize("periodic", [True, False])
def test_equals_native_property_model_with_equal_weights(intensive, periodic):
    ours = with_statistics(build_property(intensive=intensive))
    native = build_property("standard", intensive=intensive)
    native.load_state_dict(ours.state_dict())
    coord, atype, box = frame(periodic=periodic)
    expected, got = native(coord, atype, box), ours(coord, atype, box)
    for key in ("gap", "atom_gap"):
        torch.testing.assert_close(got[key], expected[key], rtol=1e-10, atol=0)


@pytest.mark.parametrize("intensive", [True, False])
def test_serialized_it_is_deepmds_own_property_model(intensive):
    """So that `dp convert-backend` takes it to every backend."""
    model = with_statistics(build_property(intensive=intensive))
    coord, atype, box = frame(periodic=True)
    for kind in (BaseModel, type(model)):
        converted = kind.deserialize(copy.deepcopy(model.serialize()))
        assert type(converted).__module__.startswith("deepmd.")
        torch.testing.assert_close(
            converted(coord, atype, box)["gap"], model(coord, atype, box)["gap"]
        )


@pytest.mark.parametrize(
    ("net", "bias"),
    [
        ({}, "element"),
        ({"distinguish_types": True}, "element"),
        ({"distinguish_types": False}, "mean"),
        ({"distinguish_types": False, "bias": "mean"}, "mean"),
        ({"bias": "none"}, "none"),
    ],
)
def test_distinguish_types_is_deepmds_name_for_the_bias(net, bias):
    assert build_property(**net).atomic_model.fitting_net.bias == bias


def test_is_a_property_model_to_deepmd():
    model = build_property()
    assert (model.get_var_name(), model.get_task_dim(), model.get_intensive()) == ("gap", 1, True)


@pytest.mark.parametrize("readout", ["mean", "max"])
def test_scripted_model_gives_the_same_numbers(readout):
    model = with_statistics(build_property(readout=readout))
    coord, atype, box = frame(periodic=True)
    scripted = torch.jit.script(model)
    torch.testing.assert_close(
        scripted(coord, atype, box)["gap"], model(coord, atype, box)["gap"], rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("readout", ["mean", "sum", "max"])
def test_padding_atoms_change_nothing(readout):
    model = with_statistics(build_property(readout=readout, intensive=readout != "sum"))
    coord, atype, _ = frame()
    padded_coord = torch.cat([coord, torch.tensor([[90.0, 0, 0, 95.0, 0, 0]])], dim=1)
    padded_type = torch.cat([atype, torch.tensor([[-1, -1]])], dim=1)
    torch.testing.assert_close(model(padded_coord, padded_type)["gap"], model(coord, atype)["gap"])


def test_max_is_the_largest_atomic_output():
    model = with_statistics(build_property(readout="max"))
    coord, atype, _ = frame()
    output = model(coord, atype)
    torch.testing.assert_close(output["gap"][0], output["atom_gap"][0].amax(dim=0))


@pytest.mark.parametrize("readout", ["mean", "sum", "max"])
def test_rotation_translation_and_permutation(readout):
    model = with_statistics(build_property(readout=readout, intensive=readout != "sum"))
    coord, atype, _ = frame()
    rotation, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    moved = coord.reshape(-1, 3) @ torch.tensor(rotation) + torch.tensor([3.0, -1.0, 2.0])
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        model(moved[order].reshape(1, -1), atype[:, order])["gap"],
        model(coord, atype)["gap"],
        rtol=1e-8,
        atol=1e-10,
    )


@pytest.mark.parametrize(("readout", "factor"), [("mean", 1), ("sum", 2), ("max", 1)])
def test_supercell(readout, factor):
    model = with_statistics(build_property(readout=readout, intensive=readout != "sum"))
    coord, atype, box = frame(periodic=True)
    shifted = coord.reshape(-1, 3) + torch.tensor([6.0, 0, 0])
    double = torch.cat([coord, shifted.reshape(1, -1)], dim=1)
    double_box = (torch.diag(torch.tensor([12.0, 6.0, 6.0]))).reshape(1, 9).to(torch.float64)
    torch.testing.assert_close(
        model(double, torch.cat([atype, atype], dim=1), double_box)["gap"],
        factor * model(coord, atype, box)["gap"],
        rtol=1e-8,
        atol=1e-10,
    )


def samples(labels, atype):
    """Pack frames as deepmd-kit samples a system for statistics."""
    counts = torch.stack([(atype == i).sum(dim=1) for i in range(5)], dim=1)
    natoms = torch.cat([torch.full((len(atype), 2), atype.shape[1]), counts], dim=1)
    return {"gap": torch.tensor(labels), "find_gap": np.float32(1.0), "natoms": natoms}


def test_change_out_bias_shifts_the_prediction_and_keeps_the_scale():
    model = with_statistics(build_property(bias="mean"))
    frames = [frame(seed=seed) for seed in range(6)]
    coord = torch.cat([f[0] for f in frames])
    atype = torch.cat([f[1] for f in frames])
    before = model(coord, atype)["gap"].detach()
    system = {**samples((before + 0.8).numpy(), atype), "coord": coord, "atype": atype, "box": None}
    model.change_out_bias([system], bias_adjust_mode="change-by-statistic")
    torch.testing.assert_close(model(coord, atype)["gap"].detach(), before + 0.8)
    assert model.atomic_model.out_std.unique().item() == pytest.approx(0.37)


def test_the_shift_is_that_of_all_properties_of_padded_batches():
    """Frames of different size in batches as training has them, one property without any label."""
    names, dims = ["gap", "alpha", "mu"], [1, 2, 1]
    model = build_property(property_name=names, task_dim=dims, bias="mean")
    frames = [frame(natoms=natoms, seed=natoms) for natoms in (9, 5)]
    width = frames[0][1].shape[1]
    coord = torch.stack(
        [torch.nn.functional.pad(f[0][0], (0, 3 * (width - f[1].shape[1]))) for f in frames]
    )
    atype = torch.stack(
        [torch.nn.functional.pad(f[1][0], (0, width - f[1].shape[1]), value=-1) for f in frames]
    )
    alone = [model(f[0], f[1]) for f in frames]
    labels = {name: torch.cat([one[name] for one in alone]).detach() for name in names}
    system = samples((labels["gap"] + 0.8).numpy(), atype)
    system |= {"coord": coord, "atype": atype, "box": None}
    system |= {"alpha": labels["alpha"] - torch.tensor([0.5, 2.0]), "find_alpha": 1.0}
    system |= {"mu": torch.full((2, 1), torch.nan), "find_mu": 0.0}
    model.change_out_bias([system], bias_adjust_mode="change-by-statistic")
    after = model(coord, atype)
    torch.testing.assert_close(after["gap"].detach(), labels["gap"] + 0.8)
    torch.testing.assert_close(
        after["alpha"].detach(), labels["alpha"] - torch.tensor([0.5, 2.0]).double()
    )
    torch.testing.assert_close(after["mu"].detach(), labels["mu"])


def test_elements_that_a_trained_head_does_not_know():
    """As the trainer adds them: the others' scale, which also measures the loss, and mean bias."""
    model = with_statistics(build_property())
    known = model.atomic_model.out_bias[0, :, 0].clone()
    model.change_type_map(["S", *TYPE_MAP[::-1]], model_with_new_type_stat=None)
    bias, scale = (
        one[0, :, 0] for one in (model.atomic_model.out_bias, model.atomic_model.out_std)
    )
    torch.testing.assert_close(bias, torch.cat([known.mean()[None], known.flip(0)]))
    assert scale.tolist() == [0.37] * 6
    assert float(model.label_scale("gap")) == 0.37


def test_an_infinite_training_label_is_refused():
    model = build_property()
    _, atype, _ = frame()
    with pytest.raises(UserError, match="'gap': a training label is infinite"):
        model.change_out_bias([samples(np.array([[np.inf]]), atype)], "set-by-statistic")


def test_statistics_name_what_is_missing():
    model = build_property()
    _, atype, _ = frame()
    system = samples(np.zeros((1, 1)), atype)
    system["homo"] = system.pop("gap")
    with pytest.raises(UserError, match="labels of property 'gap' were not loaded"):
        model.change_out_bias([system], bias_adjust_mode="set-by-statistic")


@pytest.mark.parametrize(
    ("net", "message"),
    [
        ({"property_name": "energy"}, "taken by deepmd-kit"),
        ({"readout": "sum"}, "contradict"),
        ({"readout": "median"}, "one of mean, sum, max, attention"),
        ({"bias": "type"}, "one of element, mean, none"),
        ({"bias": "mean", "distinguish_types": True}, "contradict each other"),
        ({"bias": "none", "distinguish_types": False}, "contradict each other"),
    ],
)
def test_bad_options_are_refused(net, message):
    with pytest.raises(UserError, match=message):
        build_property(**net)


def test_preset_bias_is_refused():
    params = {"type": "mft", "type_map": TYPE_MAP, "descriptor": DESCRIPTOR}
    params |= {"fitting_net": PROPERTY_NET, "preset_out_bias": {"gap": [1.0]}}
    with pytest.raises(UserError, match="preset_out_bias"):
        get_model(copy.deepcopy(params))
