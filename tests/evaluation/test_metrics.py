"""Metrics against plain formulas, and their edge cases."""

import numpy as np
import pytest

from deepmd_mft.evaluation.metrics import (
    classification,
    interval,
    intervals,
    measure,
    per_atom,
    regression,
)


def test_regression_by_hand():
    label = np.array([[0.0], [1.0], [2.0], [3.0]])
    prediction = label + np.array([[1.0], [-1.0], [0.0], [2.0]])
    found = regression(prediction, label)
    assert found["rmse"] == pytest.approx(np.sqrt(6 / 4))
    assert found["mae"] == pytest.approx(1.0)
    assert found["max_error"] == 2.0
    assert found["r2"] == pytest.approx(1 - 6 / 5)


def test_one_nan_prediction_makes_every_number_nan():
    label = np.arange(5.0)[:, None]
    prediction = label.copy()
    prediction[2] = np.nan
    assert all(np.isnan(value) for value in regression(prediction, label).values())
    assert np.isnan(intervals(prediction, label, classes=False)["rmse_low"])


def test_structures_without_a_label_are_left_out():
    label = np.array([[1.0], [np.nan], [3.0]])
    prediction = np.array([[1.0], [100.0], [3.0]])
    assert measure(prediction, label, classes=False)["rmse"] == 0


def test_constant_labels_have_no_r2():
    found = regression(np.array([[1.0], [2.0]]), np.array([[1.0], [1.0]]))
    assert np.isnan(found["r2"])
    assert found["mae"] == 0.5


def test_two_classes_have_one_logit():
    label = np.array([[0], [0], [1], [1]])
    found = classification(np.array([[-2.0], [1.0], [0.5], [3.0]]), label)
    assert found["accuracy"] == 0.75
    assert found["roc_auc"] == 0.75
    assert found["f1"] == pytest.approx(0.8)


def test_one_class_only_has_no_roc_auc():
    assert np.isnan(classification(np.array([[1.0], [2.0]]), np.ones((2, 1)))["roc_auc"])


def test_f1_is_of_the_classes_that_occur():
    logits = np.eye(3)[[0, 0, 1, 2]] * 5
    found = classification(logits, np.array([[0], [0], [0], [2]]))
    assert found["f1"] == pytest.approx((0.8 + 1.0) / 2)  # class 1 does not occur, if predicted
    assert np.isnan(classification(np.array([[1.0], [-2.0]]), np.zeros((2, 1)))["f1"])


def test_three_classes():
    logits = np.eye(3)[[0, 1, 2, 1]] * 5
    found = classification(logits, np.array([[0], [1], [2], [2]]))
    assert found["accuracy"] == 0.75
    assert 0.5 < found["roc_auc"] <= 1


def test_interval_holds_the_mean_and_repeats():
    values = np.random.default_rng(1).normal(3.0, 1.0, 400)
    low, high = interval(values, statistic=np.mean)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.2)
    assert interval(values, statistic=np.mean) == (low, high)


def test_errors_of_atoms():
    """Two structures of one and three atoms, and one without labels."""
    natoms = np.array([1, 3, 2])
    label = np.zeros((6, 3))
    label[4:] = np.nan
    prediction = np.array([[1.0] * 3] + [[2.0] * 3] * 3 + [[9.0] * 3] * 2)
    numbers, bounds, each = per_atom(prediction, label, natoms)
    assert numbers["rmse"] == pytest.approx(np.sqrt((1 + 3 * 4) / 4))
    assert numbers["mae"] == pytest.approx((1 + 3 * 2) / 4)
    np.testing.assert_allclose(each, [1.0, 2.0, np.nan])
    assert bounds["rmse_low"] == pytest.approx(1.0)  # one structure drawn twice
    assert bounds["rmse_high"] == pytest.approx(2.0)
