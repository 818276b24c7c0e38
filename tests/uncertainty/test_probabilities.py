"""Calibrated probabilities of classes against scipy, scikit-learn and a closed form."""

import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, logit, softmax
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import brier_score_loss, log_loss

from deepmd_mft.errors import UserError
from deepmd_mft.evaluation.metrics import classification
from deepmd_mft.uncertainty.calibrate import calibrate, load_calibration
from deepmd_mft.uncertainty.class_score import CLASS_SCORES, brier, ece, reliability
from deepmd_mft.uncertainty.estimate import Looked
from deepmd_mft.uncertainty.probabilities import (
    COLDEST,
    HOTTEST,
    PROBABILITIES,
    best_temperature,
    mean_probabilities,
    tempered,
)
from deepmd_mft.uncertainty.tables import class_score_table, reliability_table, telling_table


def looked(n, seed, classes, models=1, shift=0.0):
    """Logits that are three times too sure, and labels drawn from what they should be."""
    rng = np.random.default_rng(seed)
    latent = [rng.normal(size=(n, 4)) + shift for _ in range(models)]
    true = 1.5 * rng.normal(size=(n, classes)) / (1 + shift)
    label = np.array([rng.choice(classes, p=p) for p in softmax(true, axis=1)])
    logits = np.array([3 * true + rng.normal(size=true.shape) for _ in range(models)])
    if classes == 2:
        logits = logits[:, :, 1:] - logits[:, :, :1]
    prints = sparse.csr_matrix(np.abs(latent[0]))
    return Looked(logits, None, latent, [], prints), label[:, None].astype(float)


def record(classes, models=1):
    weights = [{"path": str(number), "weights_sha256": str(number)} for number in range(models)]
    return {"seed": 0, "columns": ["phase"], "num_classes": classes, "models": weights}


def calibrated(classes, models=1):
    train, _ = looked(60, 1, classes, models)
    valid, label = looked(400, 2, classes, models)
    ids = [f"t{number}" for number in range(60)]
    return calibrate(train, ids, valid, label, record(classes, models)), valid, label


@pytest.mark.parametrize("classes", [2, 3])
def test_temperature_is_that_of_scipys_minimisation(classes):
    kept, valid, label = calibrated(classes)
    logits = valid.predictions[0]
    if classes == 2:
        logits = np.hstack([np.zeros_like(logits), logits])
    rows = np.arange(len(label)), label[:, 0].astype(int)

    def loss(temperature):
        return -log_softmax(logits / temperature, axis=1)[rows].mean()

    expected = minimize_scalar(loss, bounds=(0.1, 10), method="bounded", options={"xatol": 1e-8})
    assert kept.temperature == pytest.approx(expected.x, rel=1e-5)
    assert kept.temperature > 1.5
    with_it = softmax(logits / kept.temperature, axis=1)
    np.testing.assert_allclose(kept.probability(valid, "temperature"), with_it, atol=1e-12)


def test_temperature_of_one_size_of_logit_in_closed_form():
    """All logits are +a or -a and a fraction r is right: sigmoid(a/T) = r."""
    logits = np.where(np.arange(100) % 2, 4.0, -4.0)
    label = (logits > 0).astype(int)
    label[:20] = 1 - label[:20]
    probability = np.stack([expit(-logits), expit(logits)], axis=1)
    assert best_temperature(probability, label) == pytest.approx(4.0 / logit(0.8))


def test_temperatures_that_have_no_end():
    sure = np.array([[0.9, 0.1], [0.2, 0.8]])
    assert best_temperature(sure, np.array([0, 1])) == COLDEST
    assert best_temperature(sure, np.array([1, 0])) == HOTTEST
    far = np.array([[1.0, 0.0], [0.0, 1.0]])  # no logarithm
    assert np.isfinite(tempered(far, HOTTEST)).all()


@pytest.mark.parametrize("classes", [2, 3])
def test_isotonic_is_that_of_scikit_learn(classes):
    kept, valid, label = calibrated(classes)
    new, _ = looked(50, 3, classes)
    raw, others = mean_probabilities(valid), mean_probabilities(new)
    every = []
    for number in range(classes):
        fitted = IsotonicRegression(y_min=1 / 402, y_max=401 / 402, out_of_bounds="clip")
        fitted.fit(raw[:, number], label[:, 0] == number)
        every.append(fitted.predict(others[:, number]))
    expected = np.array(every).T
    if classes == 2:
        expected[:, 0] = 1 - expected[:, 1]
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(kept.probability(new, "isotonic"), expected, atol=1e-12)
    assert kept.probability(new, "isotonic").min() > 0


@pytest.mark.parametrize("classes", [2, 4])
def test_probabilities_of_an_ensemble_have_a_sum_of_one(classes):
    kept, valid, _ = calibrated(classes, models=3)
    raw = kept.probability(valid, "raw")
    logits = valid.predictions
    if classes == 2:
        logits = np.concatenate([np.zeros_like(logits), logits], axis=2)
    np.testing.assert_allclose(raw, softmax(logits, axis=2).mean(axis=0), atol=1e-12)
    for name in PROBABILITIES:
        np.testing.assert_allclose(kept.probability(valid, name).sum(axis=1), 1, atol=1e-12)


def test_calibration_lowers_the_surprise_and_the_error_of_calibration():
    kept, _, _ = calibrated(3)
    new, label = looked(2000, 5, 3)
    table = class_score_table(kept, new, label).set_index("probabilities")
    for name in ("temperature", "isotonic"):
        assert (
            table.loc[name, ["nll", "brier", "ece"]] < table.loc["raw"][["nll", "brier", "ece"]]
        ).all()
    assert table.loc["temperature", "accuracy"] == table.loc["raw", "accuracy"]


def test_file_gives_the_same(tmp_path):
    for classes in (2, 3):
        kept, valid, _ = calibrated(classes, models=2)
        path = tmp_path / f"{classes}.npz"
        kept.save(path)
        back = load_calibration(path, ["0", "1"])
        for name in PROBABILITIES:
            both = [one.probability(valid, name) for one in (back, kept)]
            np.testing.assert_array_equal(*both)
        with pytest.raises(UserError, match="calibration of other models"):
            load_calibration(path, ["1", "0"])


def test_every_class_must_occur():
    train, _ = looked(60, 1, 3)
    valid, label = looked(60, 2, 3)
    for present, absent in (((0, 2), "class 1 of"), ((1,), "class 0, 2 of")):
        some = np.resize(np.array(present, float), len(label))[:, None]
        with pytest.raises(UserError, match=absent):
            calibrate(train, ["t"] * 60, valid, some, record(3))
    assert calibrate(train, ["t"] * 60, valid, label, record(3)).temperature > 1


def test_scores_against_scikit_learn():
    valid, label = looked(300, 4, 2)
    probability, truth = mean_probabilities(valid), label[:, 0].astype(int)
    # Brier's own score counts both classes.
    of_one = brier_score_loss(truth, probability[:, 1])
    assert brier(probability, truth) == pytest.approx(2 * of_one)
    assert CLASS_SCORES["nll"](probability, truth) == pytest.approx(log_loss(truth, probability))
    known = classification(valid.predictions[0], label)
    assert CLASS_SCORES["accuracy"](probability, truth) == known["accuracy"]
    assert CLASS_SCORES["nll"](probability, truth) == pytest.approx(known["cross_entropy"])


def test_brier_of_three_classes_by_hand():
    probability = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    expected = (0.25 + 0.49 + 0.04 + 0.01 + 0.01 + 0.04) / 2
    assert brier(probability, np.array([1, 2])) == pytest.approx(expected)


def test_reliability_and_ece_by_hand():
    confidence = np.array([0.55, 0.6, 0.95, 1.0, 0.97])
    probability = np.stack([confidence, 1 - confidence], axis=1)
    label = np.array([0, 1, 0, 0, 1])
    table = reliability(probability, label)
    assert table["structures"].tolist() == [2, 3]
    np.testing.assert_allclose(table["from"], [0.5, 0.9])
    np.testing.assert_allclose(table["confidence"], [0.575, 2.92 / 3])
    np.testing.assert_allclose(table["right"], [0.5, 2 / 3])
    expected = (2 * 0.075 + 3 * (2.92 / 3 - 2 / 3)) / 5
    assert ece(probability, label) == pytest.approx(expected)


def test_tables_leave_out_what_has_no_label_and_tell_sets_apart():
    kept, _, _ = calibrated(3)
    inside, label = looked(80, 6, 3)
    outside, _ = looked(80, 7, 3, shift=4.0)
    label[:10] = np.nan
    table = class_score_table(kept, inside, label)
    assert table["probabilities"].tolist() == list(PROBABILITIES)
    assert (table["structures"] == 70).all()
    bins = reliability_table(kept, inside, label).groupby("probabilities")["structures"].sum()
    assert (bins == 70).all()
    told = telling_table(kept, inside, outside).set_index("score")["auroc"]
    entropies = [f"entropy {name}" for name in PROBABILITIES]
    assert list(told.index) == ["mahalanobis", "knn", "structural", *entropies]
    assert told["knn"] > 0.9
    assert told["entropy temperature"] > 0.6
