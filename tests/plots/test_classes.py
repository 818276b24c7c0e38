"""Figures of classes are drawn for any number of test sets, classes and training sizes."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("matplotlib")

from deepmd_mft.plots.classes import class_figures
from deepmd_mft.plots.report import few_shot, learning_curves
from tests.report.test_classes import drawn, run


@pytest.mark.parametrize("classes", [2, 12])
def test_one_test_set_and_many_classes(classes):
    logits, label = drawn(60, 1, classes)
    if classes == 2:
        logits = logits[:, 1:] - logits[:, :1]
    confusion, reliability = class_figures(
        [run("a", "ft", {"id_test": (logits, label)})], ["id_test"]
    )
    assert len(confusion.numbers) == classes**2
    assert confusion.numbers["structures"].sum() == reliability.numbers["structures"].sum() == 60
    assert set(confusion.images) == {"light", "dark"}


def test_predictions_that_are_all_nan_have_no_figures():
    logits, label = drawn(10, 2)
    assert not class_figures([run("a", "ft", {"id_test": (logits * np.nan, label)})], ["id_test"])


def test_few_shot_shows_the_accuracy():
    table = pd.DataFrame(
        {
            "run": ["a", "b"],
            "strategy": "ft",
            "set": "id_test",
            "test": "id_test",
            "labels": [64, 256],
            "accuracy": [0.5, 0.7],
        }
    )
    found = few_shot([SimpleNamespace(strategy="ft", classes=True)], table, "classes")
    assert found.caption.startswith("Accuracy by number")
    assert "accuracy" in found.numbers


def curve(name, branch="", **columns):
    return SimpleNamespace(
        folder=SimpleNamespace(name=name),
        strategy="ft",
        branch=branch,
        property_name="metal",
        intensive=True,
        share=1.0,
        curve=pd.DataFrame({"step": [1, 2], **columns}),
    )


def test_learning_curves_are_of_what_all_runs_wrote():
    both = curve("a", accuracy_val=[0.4, 0.5], cross_entropy_val=[1.0, 0.9])
    other = curve("b", "property", accuracy_val_property=[0.4, 0.6])
    (alone,) = learning_curves([both], "classes")
    assert set(alone.numbers["column"]) == {"cross_entropy_val"}
    (together,) = learning_curves([both, other], "classes")
    assert set(together.numbers["column"]) == {"accuracy_val", "accuracy_val_property"}
    assert "logarithmic" not in together.caption
    assert not learning_curves([both, curve("c", rmse_val=[1.0, 0.5])], "classes")
