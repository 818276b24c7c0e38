"""Labels that are missing, infinite or of another width, as deepmd-kit hands them out."""

import pytest
import torch

from deepmd_mft.errors import UserError
from deepmd_mft.training.losses import MFTClassificationLoss, MFTPropertyLoss
from tests.helpers.dp import TYPE_MAP
from tests.helpers.models import NETS, build_head, build_property, frame


def batch(nframes=4):
    frames = [frame(seed=seed) for seed in range(nframes)]
    coord, atype = (torch.cat([f[i] for f in frames]) for i in (0, 1))
    return {"coord": coord, "atype": atype}


def formula(atype):
    counts = {TYPE_MAP[i]: int((atype == i).sum()) for i in range(5)}
    return "".join(f"{s}{n if n > 1 else ''}" for s, n in sorted(counts.items()) if n)


LOSSES = {
    "gap": (MFTPropertyLoss, {"property_name": "gap", "intensive": True, "type": "mft_property"}),
    "is_metal": (MFTClassificationLoss, NETS["two_classes"]),
}


def call(name, labels, inputs=None, *, find=None, **options):
    loss_class, net = LOSSES[name]
    label = {name: labels} | ({} if find is None else {f"find_{name}": find})
    inputs = inputs or batch()
    return loss_class(name, **options)(inputs, build_head(net), label, 9, learning_rate=1.0)


CLASSES = torch.tensor([[0.0], [1.0], [1.0], [0.0]], dtype=torch.float64)


@pytest.mark.parametrize("name", LOSSES)
def test_nan_is_an_error_that_names_property_and_frame(name):
    inputs, labels = batch(), CLASSES.clone()
    labels[2] = torch.nan
    with pytest.raises(UserError, match=f"property '{name}': 1 of the 4 frames") as caught:
        call(name, labels, inputs)
    assert formula(inputs["atype"][2]) in str(caught.value)
    assert "missing_labels: mask" in str(caught.value)


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_without_the_label_is_an_error(name):
    """deepmd-kit fills the labels of an LMDB frame without the field with zeros."""
    with pytest.raises(UserError, match=f"property '{name}': 4 of the 4 frames"):
        call(name, torch.zeros_like(CLASSES), find=0.0)


@pytest.mark.parametrize("missing_labels", ["error", "mask"])
@pytest.mark.parametrize("name", LOSSES)
def test_wrongly_wide_labels_are_an_error(name, missing_labels):
    wide = torch.cat([CLASSES, CLASSES], dim=1)
    with pytest.raises(UserError, match=r"2 component\(s\) where the head expects 1"):
        call(name, wide, missing_labels=missing_labels)


@pytest.mark.parametrize("missing_labels", ["error", "mask"])
@pytest.mark.parametrize("name", LOSSES)
def test_an_infinite_label_is_never_masked(name, missing_labels):
    labels = CLASSES.clone()
    labels[1] = torch.inf
    with pytest.raises(UserError, match=f"property '{name}': a label is infinite"):
        call(name, labels, missing_labels=missing_labels)


@pytest.mark.parametrize("name", LOSSES)
def test_scalar_labels_of_an_lmdb_are_one_column(name):
    _, loss, _ = call(name, CLASSES[:, 0])
    torch.testing.assert_close(loss, call(name, CLASSES)[1])


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_without_labels_shows_nan_but_not_as_rmse(name):
    kinds = {
        "gap": ["mae", "rmse", "mse", "smooth_mae", "mape", "r2"],
        "is_metal": ["accuracy", "roc_auc", "cross_entropy"],
    }[name]
    nothing = torch.full_like(CLASSES, torch.nan)
    _, loss, shown = call(name, nothing, missing_labels="mask", metric=kinds)
    assert loss.item() == 0.0
    assert len(shown) == len(kinds)
    assert all(torch.isnan(value) for value in shown.values())
    assert "rmse" not in shown


def test_r2_of_equal_labels_is_undefined():
    labels = torch.ones(4, 1, dtype=torch.float64)
    _, _, shown = call("gap", labels, metric=["r2"])
    assert torch.isnan(shown["r2"])


def test_a_nan_prediction_stops_the_training():
    inputs = batch()
    inputs["coord"][1, 0] = torch.nan
    with pytest.raises(UserError, match=r"the loss .* is NaN"):
        call("gap", CLASSES, inputs, missing_labels="mask")


def test_properties_in_another_order_than_the_heads():
    """Each keeps its own flag `intensive`."""
    inputs = batch()
    model = build_property(property_name=["homo", "alpha"], intensive=[True, False])
    label = {"homo": CLASSES, "alpha": 9 * CLASSES}
    one, other = (
        MFTPropertyLoss(names)(inputs, model, label, 9, learning_rate=1.0)
        for names in (["homo", "alpha"], ["alpha", "homo"])
    )
    torch.testing.assert_close(one[1], other[1])
    assert one[2].keys() == other[2].keys()
    for key, value in one[2].items():
        torch.testing.assert_close(value, other[2][key])


def test_a_column_that_deepmd_would_hide_is_shown_under_another_name():
    names = ["l2_norm", "gap"]
    model = build_property(property_name=names)
    label = {"l2_norm": CLASSES, "gap": CLASSES}
    _, _, shown = MFTPropertyLoss(names, metric=["mae"])(batch(), model, label, 9, 1.0)
    assert set(shown) == {"mae_l2-norm", "mae_gap"}


@pytest.mark.parametrize("loss_class", [MFTPropertyLoss, MFTClassificationLoss])
def test_a_loss_alone_needs_a_property_name(loss_class):
    with pytest.raises(UserError, match="has no property_name"):
        loss_class()
