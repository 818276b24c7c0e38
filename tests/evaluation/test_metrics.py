"""Metrics against plain formulas, and their edge cases."""

import numpy as np
import pytest

from deepmd_mft.evaluation.metrics import classification, interval, intervals, measure, regression


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


def test_three_classes():
    logits = np.eye(3)[[0, 1, 2, 1]] * 5
    found = classification(logits, np.array([[0], [1], [2], [2]]))
    assert found["accuracy"] == 0.75
    assert 0.5 < found["roc_auc"] <= 1


def test_interval_holds_the_mean_and_repeats():
    values = np.random.default_rng(1).normal(3.0, 1.0, 400)
    low, high = interval(values, np.mean)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.2)
    assert interval(values, np.mean) == (low, high)
