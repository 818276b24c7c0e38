"""The loss mft_classification."""

import pytest
import torch
import torch.nn.functional as F

from deepmd_mft.errors import UserError
from deepmd_mft.training.losses import MFTClassificationLoss
from deepmd_mft.training.losses.classification import class_metric
from tests.helpers.models import NETS, build_head, frame

sklearn_metrics = pytest.importorskip("sklearn.metrics")


def batch(labels):
    frames = [frame(seed=seed) for seed in range(len(labels))]
    inputs = {
        "coord": torch.cat([f[0] for f in frames]),
        "atype": torch.cat([f[1] for f in frames]),
    }
    return inputs, torch.tensor(labels, dtype=torch.float64).reshape(-1, 1)


@pytest.mark.parametrize("weights", [None, [1.0, 3.0]])
def test_two_classes_are_binary_cross_entropy(weights):
    inputs, labels = batch([0, 1, 1, 0])
    model = build_head(NETS["two_classes"])
    loss = MFTClassificationLoss("is_metal", class_weights=weights)
    pred, got, _ = loss(inputs, model, {"is_metal": labels}, 9)
    each = torch.tensor(weights or [1.0, 1.0], dtype=torch.float64)[labels.long()]
    logits = pred["is_metal"]
    expected = F.binary_cross_entropy_with_logits(logits, labels, weight=each, reduction="sum")
    torch.testing.assert_close(got, expected / each.sum())


def test_three_classes_are_cross_entropy():
    inputs, labels = batch([0, 2, 1])
    loss = MFTClassificationLoss("phase", num_classes=3)
    pred, got, _ = loss(inputs, build_head(NETS["three_classes"]), {"phase": labels}, 9)
    torch.testing.assert_close(got, F.cross_entropy(pred["phase"], labels[:, 0].long()))


def test_missing_labels_do_not_count():
    inputs, labels = batch([0, 1, torch.nan])
    model = build_head(NETS["two_classes"])
    loss = MFTClassificationLoss("is_metal", missing_labels="mask")
    _, got, _ = loss(inputs, model, {"is_metal": labels}, 9)
    known = {key: value[:2] for key, value in inputs.items()}
    torch.testing.assert_close(got, loss(known, model, {"is_metal": labels[:2]}, 9)[1])


def test_a_batch_of_a_class_without_weight_has_no_loss():
    loss = MFTClassificationLoss("is_metal", class_weights=[0.0, 2.0])
    model = build_head(NETS["two_classes"])
    coord, atype, _ = frame()
    inputs = {"coord": coord, "atype": atype, "box": None}
    found = {}
    for label in (0.0, 1.0):
        labels = {"is_metal": torch.tensor([[label]])}
        value = found[label] = loss(inputs, model, labels, 9)[1]
        value.backward()
    assert float(found[0.0]) == 0
    assert float(found[1.0]) > 0


def test_a_label_that_is_no_class_is_named():
    inputs, labels = batch([0, 3])
    with pytest.raises(UserError, match="label 3 is no class"):
        MFTClassificationLoss("is_metal")(
            inputs, build_head(NETS["two_classes"]), {"is_metal": labels}, 9
        )


def test_metrics_are_those_of_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 2, generator=generator).double().round(decimals=1)  # with ties
    classes = torch.randint(0, 2, (50,), generator=generator)
    score = logits[:, 1] - logits[:, 0]
    assert class_metric(logits, classes, "roc_auc").item() == pytest.approx(
        sklearn_metrics.roc_auc_score(classes, score)
    )
    assert class_metric(logits, classes, "accuracy").item() == pytest.approx(
        sklearn_metrics.accuracy_score(classes, logits.argmax(dim=1))
    )
    assert torch.isnan(class_metric(logits, torch.zeros(50), "roc_auc"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_weights": [1.0]}, "1 entries for 2 classes"),
        ({"num_classes": 3, "metric": ["roc_auc"]}, "roc_auc is for two classes"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        MFTClassificationLoss("is_metal", **options)


def test_head_and_loss_must_agree():
    inputs, labels = batch([0, 1])
    with pytest.raises(UserError, match="num_classes of loss and fitting_net"):
        MFTClassificationLoss("phase")(
            inputs, build_head(NETS["three_classes"]), {"phase": labels}, 9
        )


def test_serialization_round_trip():
    loss = MFTClassificationLoss("is_metal", class_weights=[1.0, 2.0])
    assert MFTClassificationLoss.deserialize(loss.serialize()).serialize() == loss.serialize()
