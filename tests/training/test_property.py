"""The loss mft_property against deepmd-kit's property loss."""

import pytest
import torch
from deepmd.pt.loss.property import PropertyLoss

from deepmd_mft.errors import UserError
from deepmd_mft.training.losses import MFTPropertyLoss
from deepmd_mft.training.losses.property import distance
from tests.helpers.models import build_property, frame, with_statistics


@pytest.fixture
def batch():
    frames = [frame(seed=seed) for seed in range(4)]
    inputs = {
        "coord": torch.cat([f[0] for f in frames]),
        "atype": torch.cat([f[1] for f in frames]),
    }
    generator = torch.Generator().manual_seed(0)
    return inputs, torch.randn(4, 1, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("loss_func", ["mse", "mae", "smooth_mae", "rmse", "mape"])
@pytest.mark.parametrize("intensive", [True, False])
def test_reduction_sum_reproduces_the_native_loss(batch, loss_func, intensive):
    inputs, labels = batch
    model = with_statistics(build_property(intensive=intensive))
    names = ["mae", "rmse", "mse", "smooth_mae", "mape"]
    native = PropertyLoss(
        1, "gap", loss_func=loss_func, beta=0.7, metric=names, intensive=intensive
    )
    ours = MFTPropertyLoss("gap", loss_func=loss_func, beta=0.7, metric=names, reduction="sum")
    # the native loss divides the labels of an extensive property in place
    _, expected, shown = native(inputs, model, {"gap": labels.clone()}, 9)
    _, got, more = ours(inputs, model, {"gap": labels.clone()}, 9, learning_rate=1.0)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=0)
    for name in names:
        torch.testing.assert_close(more[name], shown[name], rtol=1e-12, atol=0)


def test_mean_does_not_follow_the_batch_size(batch):
    inputs, labels = batch
    model = with_statistics(build_property())
    loss = MFTPropertyLoss("gap", loss_func="mse")
    _, one, _ = loss(inputs, model, {"gap": labels}, 9, learning_rate=1.0)
    twice = {key: torch.cat([value, value]) for key, value in inputs.items()}
    _, two, _ = loss(twice, model, {"gap": torch.cat([labels, labels])}, 9, learning_rate=1.0)
    torch.testing.assert_close(one, two)


def test_prefactor_follows_the_learning_rate(batch):
    inputs, labels = batch
    model = build_property()
    plain = MFTPropertyLoss("gap")(inputs, model, {"gap": labels}, 9, learning_rate=0.5)[1]
    scheduled = MFTPropertyLoss("gap", starter_learning_rate=1.0, start_pref=4.0, limit_pref=2.0)
    loss = scheduled(inputs, model, {"gap": labels}, 9, learning_rate=0.5)[1]
    torch.testing.assert_close(loss, 3.0 * plain)


def test_head_and_loss_must_agree(batch):
    inputs, labels = batch
    with pytest.raises(UserError, match="predicts 'gap' \\(task_dim 1\\), its loss"):
        MFTPropertyLoss("homo")(inputs, build_property(), {"homo": labels}, 9)


def test_serialization_round_trip():
    loss = MFTPropertyLoss("gap", loss_func="mae", reduction="sum", start_pref=3.0)
    assert MFTPropertyLoss.deserialize(loss.serialize()).serialize() == loss.serialize()


def test_missing_labels_do_not_count(batch):
    inputs, labels = batch
    model = with_statistics(build_property())
    loss = MFTPropertyLoss("gap", loss_func="mse", missing_labels="mask")
    labels[1] = torch.nan
    _, got, more = loss(inputs, model, {"gap": labels, "find_gap": 1.0}, 9, learning_rate=1.0)
    known = torch.tensor([0, 2, 3])
    part = {key: value[known] for key, value in inputs.items()}
    _, expected, shown = loss(part, model, {"gap": labels[known]}, 9, learning_rate=1.0)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(more["rmse_gap"], shown["rmse_gap"])


def test_a_system_without_labels_gives_no_gradient(batch):
    inputs, labels = batch
    model = with_statistics(build_property())
    loss = MFTPropertyLoss("gap", missing_labels="mask")
    filled = {"gap": torch.zeros_like(labels), "find_gap": 0.0}
    _, got, more = loss(inputs, model, filled, 9, learning_rate=1.0)
    got.backward()
    assert got.item() == 0.0
    assert all(not p.grad.any() for p in model.parameters() if p.grad is not None)
    assert torch.isnan(more["rmse_gap"])
    assert torch.isnan(more["mae"])
    assert "rmse" not in more, "a NaN there stops deepmd-kit"
    assert [item["must"] for item in loss.label_requirement] == [False, False]


def test_several_properties_are_weighted(batch):
    inputs, labels = batch
    model = build_property(property_name=["homo", "alpha"], intensive=[True, False])
    label = {"homo": labels, "alpha": labels + 1}
    names = ["homo", "alpha"]
    parts = [
        MFTPropertyLoss(names, task_dim=[1, 1], weight=weight)(inputs, model, label, 9, 1.0)[1]
        for weight in ([1.0, 0.0], [0.0, 1.0], [2.0, 3.0])
    ]
    torch.testing.assert_close(parts[2], 2 * parts[0] + 3 * parts[1])
    shown = MFTPropertyLoss(names, task_dim=[1, 1])(inputs, model, label, 9, 1.0)[2]
    assert set(shown) == {"mae_homo", "rmse_homo", "mae_alpha", "rmse_alpha"}


def test_gaussian_nll_against_its_formula(batch):
    inputs, labels = batch
    model = with_statistics(build_property(predict_variance=True))
    loss = MFTPropertyLoss("gap", loss_func="gaussian_nll")
    pred, got, _ = loss(inputs, model, {"gap": labels}, 9, learning_rate=1.0)
    scale = 0.37
    variance = pred["gap_variance"] / scale**2
    squared = ((pred["gap"] - labels) / scale).square()
    torch.testing.assert_close(got, 0.5 * (variance.log() + squared / variance).mean())
    with pytest.raises(UserError, match="predict_variance: true"):
        loss(inputs, build_property(), {"gap": labels}, 9)


def test_r2_is_that_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    generator = torch.Generator().manual_seed(0)
    predicted, target = torch.randn(2, 20, generator=generator, dtype=torch.float64)
    got = distance(predicted, target, "r2").item()
    assert got == pytest.approx(metrics.r2_score(target, predicted))


def test_training_in_another_unit_is_the_same_training(batch):
    """Labels, bias and scale times 27.2: the same loss, so the same gradients."""
    inputs, labels = batch
    model = with_statistics(build_property())
    loss = MFTPropertyLoss("gap", loss_func="smooth_mae")
    one = loss(inputs, model, {"gap": labels}, 9, learning_rate=1.0)[1]
    model.atomic_model.out_bias *= 27.211
    model.atomic_model.out_std *= 27.211
    other = loss(inputs, model, {"gap": 27.211 * labels}, 9, learning_rate=1.0)[1]
    torch.testing.assert_close(one, other)
