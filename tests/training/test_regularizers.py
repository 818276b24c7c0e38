"""Regularisers against closed forms, numpy, and their limits."""

import copy

import numpy as np
import pytest
import torch

from deepmd_mft.errors import UserError
from deepmd_mft.training.losses import MFTPropertyLoss
from deepmd_mft.training.losses.base import Batch
from deepmd_mft.training.regularizers import build_regularizers
from deepmd_mft.training.regularizers.base import watch_descriptor
from deepmd_mft.training.regularizers.reference import read_reference
from tests.helpers.dp import DESCRIPTOR, PROPERTY_NET, TYPE_MAP, mft_input, single_input
from tests.helpers.models import build_property, frame, save_checkpoint

NETS = {"descriptor": DESCRIPTOR, "fitting_net": PROPERTY_NET, "type": "mft"}


@pytest.fixture
def reference(tmp_path):
    """A checkpoint with other weights than those of ``build_property``."""
    descriptor = copy.deepcopy(DESCRIPTOR) | {"seed": 7}
    return save_checkpoint(tmp_path / "reference.pt", **{**NETS, "descriptor": descriptor})


def batch_of(model, nframes=3):
    coord = torch.cat([frame(seed=seed)[0] for seed in range(nframes)])
    atype = torch.cat([frame(seed=seed)[1] for seed in range(nframes)])
    inputs = {"coord": coord, "atype": atype, "box": None}
    with watch_descriptor(model) as seen:
        prediction = model(**inputs)
    return Batch(inputs, {}, model, prediction, 9, 1e-3), seen[0]


def descriptor_of(path):
    prefix = "model.Default.atomic_model.descriptor."
    state = torch.load(path, weights_only=True)["model"]
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def test_l2_sp_and_its_gradient_are_the_closed_form(reference):
    model = build_property()
    (regularizer,) = build_regularizers(
        [{"type": "l2_sp", "weight": 0.3, "reference": str(reference)}]
    )
    batch, seen = batch_of(model)
    value = regularizer.value(batch, seen)
    value.backward()
    known = descriptor_of(reference)
    expected = 0.0
    for name, parameter in model.get_descriptor().named_parameters():
        difference = parameter.detach() - known[name]
        expected += float(difference.square().sum())
        torch.testing.assert_close(parameter.grad, 2 * difference)
    assert expected > 1
    np.testing.assert_allclose(float(value), expected)
    assert all(p.grad is None for p in model.atomic_model.fitting_net.parameters())


def test_l2_sp_holds_layers_that_wake_later(reference):
    """Linear probing first: at the first step nothing of the backbone is trained."""
    model = build_property()
    options = [{"type": "l2_sp", "weight": 1.0, "reference": str(reference)}]
    (regularizer,), (later,) = build_regularizers(options), build_regularizers(options)
    batch, seen = batch_of(model)
    expected = regularizer.value(batch, seen)
    for parameter in model.get_descriptor().parameters():
        parameter.requires_grad_(False)
    assert float(later.value(batch, seen)) == 0
    for parameter in model.get_descriptor().parameters():
        parameter.requires_grad_(True)
    torch.testing.assert_close(later.value(batch, seen), expected)


@pytest.mark.parametrize("k", [1, 3])
def test_spectral_shrinkage_is_numpys_svd(k):
    model = build_property()
    (regularizer,) = build_regularizers([{"type": "spectral_shrinkage", "weight": 1.0, "k": k}])
    batch, seen = batch_of(model, nframes=4)
    pooled = seen.node.detach().numpy().mean(axis=1)
    expected = np.sort(np.linalg.svd(pooled, compute_uv=False))[:k] ** 2
    np.testing.assert_allclose(float(regularizer.value(batch, seen)), expected.sum(), rtol=1e-8)


def test_spectral_shrinkage_leaves_padding_out():
    model = build_property()
    (regularizer,) = build_regularizers([{"type": "spectral_shrinkage", "weight": 1.0}])
    batch, _ = batch_of(model)
    padded = {
        "coord": torch.cat([batch.inputs["coord"], torch.zeros(3, 6)], dim=1),
        "atype": torch.cat([batch.inputs["atype"], torch.full((3, 2), -1)], dim=1),
        "box": None,
    }
    values = []
    for inputs in (batch.inputs, padded):
        with watch_descriptor(model) as seen:
            prediction = model(**inputs)
        values.append(regularizer.value(Batch(inputs, {}, model, prediction, 9, 1e-3), seen[0]))
    torch.testing.assert_close(values[1], values[0])


def test_feature_drift(reference):
    model = build_property()
    (regularizer,) = build_regularizers(
        [{"type": "feature_drift", "weight": 1.0, "reference": str(reference)}]
    )
    batch, seen = batch_of(model)
    value = regularizer.value(batch, seen)
    value.backward()
    other = build_property()
    other.get_descriptor().load_state_dict(descriptor_of(reference))
    _, there = batch_of(other)
    expected = (seen.node - there.node).square().mean() / there.node.square().mean()
    torch.testing.assert_close(value, expected)
    assert model.get_descriptor().repflows.layers[0].node_self_mlp.matrix.grad.abs().max() > 0
    (none,) = build_regularizers(
        [{"type": "feature_drift", "weight": 1.0, "reference": str(reference)}]
    )
    batch, seen = batch_of(other)
    assert float(none.value(batch, seen)) == 0


def test_a_type_map_in_another_order(reference):
    """What --finetune starts from has no distance: types are held to their own vectors."""
    model = build_property()
    model.get_descriptor().load_state_dict(descriptor_of(reference))
    model.change_type_map(TYPE_MAP[::-1])
    batch, seen = batch_of(model)
    for kind in ("l2_sp", "feature_drift"):
        (one,) = build_regularizers([{"type": kind, "weight": 1.0, "reference": str(reference)}])
        assert float(one.value(batch, seen)) == 0


def test_elements_that_the_reference_lacks(reference):
    with pytest.raises(UserError, match=r"does not have S, P of the model's type_map"):
        read_reference(str(reference), [*TYPE_MAP, "S", "P"])


def test_weight_zero_is_left_out():
    assert build_regularizers([{"type": "spectral_shrinkage", "weight": 0.0, "k": 1}]) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"type": "spectral_shrinkage", "weight": 1.0, "k": 4}, "k is 4, but a batch of 3 frames"),
        ({"type": "l2_sp", "weight": 1.0, "reference": "none.pt"}, "none.pt does not exist"),
    ],
)
def test_mistakes(options, message):
    (regularizer,) = build_regularizers([options])
    with pytest.raises(UserError, match=message):
        regularizer.value(*batch_of(build_property()))


def test_a_reference_of_another_network(tmp_path):
    wide = copy.deepcopy(DESCRIPTOR)
    wide["repflow"]["n_dim"] = 14
    path = save_checkpoint(tmp_path / "wide.pt", **{**NETS, "descriptor": wide})
    for kind in ("l2_sp", "feature_drift"):
        (one,) = build_regularizers([{"type": kind, "weight": 1.0, "reference": str(path)}])
        with pytest.raises(UserError, match=r"has the shape .*another network"):
            one.value(*batch_of(build_property()))


def test_a_loss_adds_them_with_a_column_each(reference):
    options = [
        {"type": "l2_sp", "weight": 0.5, "reference": str(reference)},
        {"type": "spectral_shrinkage", "weight": 2.0, "k": 1},
    ]
    model = build_property()
    batch, _ = batch_of(model)
    label = {"gap": torch.tensor([[0.1], [0.2], [0.3]])}
    plain = MFTPropertyLoss("gap")(batch.inputs, model, label, 9)
    more = MFTPropertyLoss("gap", regularizers=options)(batch.inputs, model, label, 9)
    added = 0.5 * more[2]["l2-sp"] + 2.0 * more[2]["spectral_shrinkage"]
    torch.testing.assert_close(more[1], plain[1] + added)
    assert float(added) > 1


def test_through_dp(dp, pretrained, reference):
    """Beside MFT and over a restart; what is wrong is told before the first step."""
    config = mft_input()
    held = {"type": "l2_sp", "weight": 10.0, "reference": str(pretrained)}
    drift = {"type": "feature_drift", "weight": 1e-3, "reference": str(pretrained)}
    config["loss_dict"]["property"]["regularizers"] = [held, drift]
    config["training"] |= {"model_prob": {"GFN2": 0.0, "property": 1.0}, "numb_steps": 2}
    config["training"] |= {"save_freq": 1, "disp_freq": 1}
    dp.train(config, "--finetune", str(pretrained))
    config["training"]["numb_steps"] = 3
    dp.train(config, "--restart", "model.ckpt-2.pt")
    names, *rows = (dp.folder / "lcurve.out").read_text().splitlines()
    column = names.lstrip("# ").split().index("l2-sp_trn_property")
    distances = [float(row.split()[column]) for row in rows if not row.startswith("#")]
    assert distances[0] == 0  # at the checkpoint, then away from it, after the restart too
    assert min(distances[1:]) > 0
    held["reference"] = str(reference)
    output = dp.train(config, "--finetune", str(pretrained), ok=False)
    assert "whose backbone is not that of" in output
    wrong = single_input()
    wrong["loss"]["regularizers"] = [{"type": "l2_spp", "weight": 1.0}]
    assert "l2_spp" in dp.train(wrong, ok=False)
