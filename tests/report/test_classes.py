"""Tables of a report on classes against scikit-learn."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from deepmd_mft.report.classes import (
    absent_classes,
    confusion_table,
    reliability_table,
    told_classes,
)


def run(name, strategy, sets):
    """A run with logits and labels of each set."""
    return SimpleNamespace(
        folder=SimpleNamespace(name=name), strategy=strategy, sets=list(sets), values=sets.get
    )


def drawn(n, seed, classes=3):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, size=n)
    logits = rng.normal(size=(n, classes)) + 2 * np.eye(classes)[label]
    return logits, label[:, None].astype(float)


@pytest.fixture
def seeds():
    sets = [{"id_test": drawn(40, seed), "ood_test": drawn(30, seed + 5)} for seed in (1, 2)]
    return [run(f"s{number}", "ft", one) for number, one in enumerate(sets)], sets


def test_confusion_is_that_of_scikit_learn(seeds):
    runs, sets = seeds
    table = confusion_table(told_classes([run("a", "scratch", sets[0]), *runs]))
    both = [one["id_test"] for one in sets]
    label = np.concatenate([label[:, 0] for _, label in both])
    chosen = np.concatenate([logits.argmax(axis=1) for logits, _ in both])
    own = table[(table["strategy"] == "ft") & (table["set"] == "id_test")]
    expected = confusion_matrix(label, chosen)
    np.testing.assert_array_equal(own["structures"].to_numpy().reshape(3, 3), expected)
    normed = confusion_matrix(label, chosen, normalize="true")
    np.testing.assert_allclose(own["fraction"].to_numpy().reshape(3, 3), normed)
    assert (own["runs"] == 2).all()
    assert list(dict.fromkeys(table["strategy"])) == ["scratch", "ft"]


def test_reliability_counts_every_structure_of_every_run(seeds):
    table = reliability_table(told_classes(seeds[0])).groupby("set")["structures"].sum()
    assert table.to_dict() == {"id_test": 80, "ood_test": 60}


def test_folds_are_one_set_and_predictions_that_are_nan_are_left_out():
    logits, label = drawn(20, 3)
    folds = [run(f"f{i}", "ft", {f"fold_0{i}/ood_test": (logits, label)}) for i in range(2)]
    bad = run("bad", "ft", {"fold_02/ood_test": (logits * np.nan, label)})
    (told,) = told_classes([*folds, bad])
    assert (told.test, told.runs, len(told.label)) == ("ood_test", 2, 40)


def test_classes_that_a_set_lacks_are_said():
    logits, label = drawn(50, 4)
    runs = [run("a", "ft", {"id_test": (logits, label), "ood_test": (logits, label * 0 + 1)})]
    (note,) = absent_classes(runs)
    assert "no structure of ood_test has classes 0, 2" in note
    table = confusion_table(told_classes(runs))
    lost = table[(table["set"] == "ood_test") & (table["label"] == 0)]
    assert lost["fraction"].isna().all()
