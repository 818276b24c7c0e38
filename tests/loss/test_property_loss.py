"""The loss mft_property against deepmd-kit's property loss."""

import pytest
import torch
from deepmd.pt.loss.property import PropertyLoss

from deepmd_mft.errors import UserError
from deepmd_mft.loss import MFTPropertyLoss
from tests.model.test_property_model import build, frame, with_statistics


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
    model = with_statistics(build(intensive=intensive))
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
    model = with_statistics(build())
    loss = MFTPropertyLoss("gap", loss_func="mse")
    _, one, _ = loss(inputs, model, {"gap": labels}, 9, learning_rate=1.0)
    twice = {key: torch.cat([value, value]) for key, value in inputs.items()}
    _, two, _ = loss(twice, model, {"gap": torch.cat([labels, labels])}, 9, learning_rate=1.0)
    torch.testing.assert_close(one, two)


def test_prefactor_follows_the_learning_rate(batch):
    inputs, labels = batch
    model = build()
    plain = MFTPropertyLoss("gap")(inputs, model, {"gap": labels}, 9, learning_rate=0.5)[1]
    scheduled = MFTPropertyLoss("gap", starter_learning_rate=1.0, start_pref=4.0, limit_pref=2.0)
    loss = scheduled(inputs, model, {"gap": labels}, 9, learning_rate=0.5)[1]
    torch.testing.assert_close(loss, 3.0 * plain)


def test_head_and_loss_must_agree(batch):
    inputs, labels = batch
    with pytest.raises(UserError, match="predicts property 'gap' with task_dim 1, its loss"):
        MFTPropertyLoss("homo")(inputs, build(), {"homo": labels}, 9)


def test_serialization_round_trip():
    loss = MFTPropertyLoss("gap", loss_func="mae", reduction="sum", start_pref=3.0)
    assert MFTPropertyLoss.deserialize(loss.serialize()).serialize() == loss.serialize()
