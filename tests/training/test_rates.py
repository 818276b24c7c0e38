"""Rates by layer: what Adam's steps show, freezing, restart."""

import numpy as np
import pytest
import torch

from deepmd_mft.errors import UserError
from deepmd_mft.training.rates import MFTRate
from tests.helpers.dp import mft_input, single_input

RATE = {"type": "mft", "start_lr": 1e-3, "stop_lr": 1e-5, "schedule": {"decay_steps": 5}}


def named(*names):
    return [(name, torch.nn.Parameter(torch.zeros(1))) for name in names]


def weights(path):
    state = torch.load(path, map_location="cpu", weights_only=True)["model"]
    return {k: v for k, v in state.items() if isinstance(v, torch.Tensor)}


def largest_step(before, after, part):
    """Return the largest change of any weight whose name has ``part`` in it."""
    keys = [k for k in after if part in k and k in before and before[k].is_floating_point()]
    return max(float((after[k] - before[k]).abs().max()) for k in keys)


def rated(config, **options):
    config["learning_rate"] = {**RATE, **options}
    config["training"] |= {"numb_steps": 1, "save_freq": 1}
    return config


def test_depths_and_factors():
    rate = MFTRate(1e-3, 10, stop_lr=1e-5, backbone_factor=0.5, layer_decay=0.1)
    groups = rate.group(
        named(
            "model.a.atomic_model.fitting_net.w",
            "model.a.atomic_model.descriptor.type_embedding.embedding.embedding_net.layers.0.w",
            "model.a.atomic_model.descriptor.repflows.layers.0.w",
            "model.a.atomic_model.descriptor.repflows.layers.1.w",
        )
    )
    assert [group.depth for group in groups] == [0, 1, 2, 3]
    np.testing.assert_allclose([group.factor for group in groups], [1, 0.5, 0.05, 0.005])


def test_a_descriptor_without_messages_is_one_layer():
    """The layers of its embedding nets pass no messages."""
    names = [f"a.descriptor.sea.filter_layers.networks.{n}.layers.{n}.matrix" for n in (0, 1)]
    rate = MFTRate(1e-3, 10, stop_lr=1e-5, layer_decay=0.1)
    groups = rate.group(named("a.fitting_net.w", *names))
    assert [(group.depth, len(group.parameters)) for group in groups] == [(0, 1), (1, 2)]


@pytest.mark.parametrize("step", [0, 4, 5, 7, 9])
def test_layers_wake_one_after_the_other(step):
    rate = MFTRate(1e-3, 20, stop_lr=1e-5, lp_steps=5, unfreeze_every=2)
    parameters = named(
        "a.fitting_net.w", "a.descriptor.repflows.layers.0.w", "a.descriptor.repflows.layers.1.w"
    )
    rate.group(parameters)
    rate.wake(step)
    trained = [parameter.requires_grad for _, parameter in parameters]
    assert trained == [True, step >= 7, step >= 5]


def test_a_pattern_that_fits_nothing():
    rate = MFTRate(1e-3, 20, stop_lr=1e-5, frozen=["*layer.0*"])
    with pytest.raises(UserError, match=r"'\*layer\.0\*', which fits no parameter; .*layers\.0\.w"):
        rate.group(named("a.descriptor.repflows.layers.0.w"))


@pytest.mark.parametrize("optimizer", ["Adam", "AdamW"])
def test_first_steps_have_the_ratio_asked(dp, pretrained, optimizer):
    """The first step of Adam moves every weight by its rate."""
    config = rated(mft_input(), layer_decay=0.1, backbone_factor=0.5)
    config["training"]["model_prob"] = {"GFN2": 1.0, "property": 0.0}
    config["optimizer"] = {"type": optimizer, "weight_decay": 0.0}
    dp.train(config, "--finetune", str(pretrained))
    before, after = weights(pretrained), weights(dp.folder / "model.ckpt-1.pt")
    steps = [
        largest_step(before, after, part)
        for part in (
            "GFN2.atomic_model.fitting_net.filter",
            "repflows.layers.1.",
            "repflows.layers.0.",
        )
    ]
    np.testing.assert_allclose(steps, [1e-3, 5e-4, 5e-5], rtol=1e-3)


def test_restart(dp):
    """The rates of layers go on; others than before are refused."""
    config = rated(single_input(), layer_decay=0.1)
    dp.train(config)
    config["training"]["numb_steps"] = 2
    dp.train(config, "--restart", "model.ckpt-1.pt")
    state = torch.load(dp.folder / "model.ckpt-2.pt", weights_only=True)["optimizer"]
    rates = [group["lr"] for group in state["param_groups"]]
    schedule = MFTRate(1e-3, 2, stop_lr=1e-5, schedule={"decay_steps": 5})
    np.testing.assert_allclose(rates, [schedule.value(2) * 0.1**n for n in (0, 0, 1, 2)])
    config["learning_rate"] = {"type": "exp", "start_lr": 1e-3, "stop_lr": 1e-5}
    output = dp.train(config, "--restart", "model.ckpt-1.pt", ok=False)
    assert "was trained with other rates of layers" in output
    assert "Traceback" not in output


def test_linear_probing_first_and_frozen_layers(dp, pretrained):
    config = rated(mft_input(), lp_steps=2, frozen=["*.layers.0.*", "*type_embedding*"])
    config["training"] |= {"numb_steps": 3, "model_prob": {"GFN2": 0.0, "property": 1.0}}
    dp.train(config, "--finetune", str(pretrained))
    start, probed, tuned = (
        weights(path) for path in (pretrained, *(dp.folder / f"model.ckpt-{n}.pt" for n in (2, 3)))
    )
    assert largest_step(start, probed, "repflows.") == 0
    assert largest_step(probed, tuned, "repflows.layers.1.") > 1e-5
    assert largest_step(probed, tuned, "property.atomic_model.fitting_net.filter") > 1e-5
    assert largest_step(start, tuned, "repflows.layers.0.") == 0
    assert largest_step(start, tuned, "type_embedding") == 0


def test_without_options_it_is_the_native_schedule(dp):
    """The same losses, to the last digit printed, as with deepmd-kit's own learning rate."""
    curves = []
    for rate in (RATE, {"type": "exp", "start_lr": 1e-3, "stop_lr": 1e-5, "decay_steps": 5}):
        config = single_input()
        config["learning_rate"] = rate
        config["training"]["disp_freq"] = 1
        dp.train(config)
        curves.append((dp.folder / "lcurve.out").read_text())
    assert curves[0] == curves[1]
