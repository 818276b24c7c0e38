"""Estimates and their calibration, on numbers whose answer is known."""

import numpy as np
import pytest
from scipy import sparse
from scipy.stats import binom

from deepmd_mft.errors import UserError
from deepmd_mft.structures.structure_set import StructureSet
from deepmd_mft.uncertainty.calibrate import calibrate, check_apart, load_calibration
from deepmd_mft.uncertainty.estimate import (
    DISTANCES,
    MOST_DEGREES,
    STDS,
    Fitted,
    Looked,
    laplace,
    nearest,
    positive,
    usable_stds,
    variance_prior,
)
from deepmd_mft.uncertainty.intervals import INTERVALS, conformal_quantile, z_scale
from deepmd_mft.uncertainty.tables import score_table, sparsification_table, telling_table
from tests.helpers.dp import DATA
from tests.helpers.systems import write_system


def looked(n, seed, models=2, width=4, shift=0.0):
    rng = np.random.default_rng(seed)
    latent = [rng.normal(size=(n, width)) + shift for _ in range(models)]
    truth = latent[0] @ np.arange(1.0, width + 1)
    predictions = truth + rng.normal(size=(models, n)) * (1 + np.abs(latent[0][:, 0]))
    prints = sparse.csr_matrix(np.abs(latent[0]))
    return Looked(predictions[:, :, None], None, latent, latent, prints), truth[:, None]


@pytest.fixture
def made():
    train, _ = looked(60, 1)
    valid, label = looked(40, 2)
    record = {
        "coverage": 0.9,
        "num_classes": None,
        "seed": 0,
        "columns": ["gap"],
        "models": [{"path": "a", "weights_sha256": "1"}],
    }
    return calibrate(train, [f"t{i}" for i in range(60)], valid, label, record)


@pytest.mark.parametrize("kind", ["absolute", "normalised"])
def test_conformal_coverage_over_200_splits(kind):
    rng = np.random.default_rng(0)
    calibration, new, inside = 99, 50, []
    for _ in range(200):
        std = rng.uniform(0.5, 3, size=(calibration + new, 1))
        error = std * rng.standard_t(3, size=std.shape)
        half = INTERVALS[kind](error[:calibration], std[:calibration], 0.9)
        ends = half * (1 if kind == "absolute" else std[calibration:])
        # One structure a split: what several of one split do is not independent.
        inside.append(bool((np.abs(error[calibration:]) <= ends)[0, 0]))
    low, high = binom.interval(0.999, 200, 0.9)
    assert low <= sum(inside) <= high


def test_conformal_quantile_is_the_rank_of_the_papers():
    scores = np.arange(1.0, 20.0)[:, None]  # 19 scores: the 18th of 20 places is rank 18
    assert conformal_quantile(scores, 0.9) == 18
    assert conformal_quantile(scores[:9], 0.9) == 9
    with pytest.raises(UserError, match=r"^8 validation structures .* give 9 or more"):
        conformal_quantile(scores[:8], 0.9)


def test_laplace_is_the_variance_of_the_gaussian_process():
    rng = np.random.default_rng(3)
    train, new, ridge = rng.normal(size=(30, 5)), rng.normal(size=(7, 5)), 0.3
    kernel = train @ train.T / ridge
    cross = new @ train.T / ridge
    gained = np.linalg.solve(kernel + np.eye(30), cross.T)
    expected = np.diag(new @ new.T / ridge - cross @ gained)
    np.testing.assert_allclose(laplace(new, train.T @ train, ridge), expected, rtol=1e-9)


def test_ensemble_of_two_and_of_one(made):
    two, _ = looked(5, 4)
    np.testing.assert_allclose(STDS["ensemble"](two, None), two.predictions.std(0, ddof=1))
    one, _ = looked(5, 4, models=1)
    assert usable_stds(one, calibrated=True) == ["llpr"]
    del made.scales["ensemble"]
    with pytest.raises(UserError, match="an ensemble needs two models or more"):
        made.std(one, "ensemble")


def drawn(models, n, degrees, seed=0):
    """Predictions of models, and errors, whose variances are 4 degrees / chi-squared."""
    rng = np.random.default_rng(seed)
    variance = 4 * degrees / rng.chisquare(degrees, size=(n, 1)) if degrees else np.full((n, 1), 4)
    std = np.sqrt(variance)
    return rng.normal(size=(models, n, 1)) * std, rng.normal(size=(n, 1)) * std, std


@pytest.mark.parametrize("models", [2, 3, 5])
def test_prior_of_variances_is_that_they_were_drawn_from(models):
    predictions, _, _ = drawn(models, 40_000, degrees=6)
    degrees, usual = variance_prior(predictions)[:, 0]
    assert degrees == pytest.approx(6, rel=0.15)
    assert usual == pytest.approx(4, rel=0.03)
    same, usual = variance_prior(drawn(models, 40_000, degrees=0)[0])[:, 0]
    assert same > 60
    assert usual == pytest.approx(4, rel=0.03)
    assert variance_prior(np.ones((3, 9, 1)))[0, 0] == MOST_DEGREES
    assert np.isnan(variance_prior(predictions[:1])).all()


@pytest.mark.parametrize("models", [2, 3])
def test_few_models_have_a_scale_that_chance_does_not_rule(models):
    """Errors have the std of the models; over the moderated std they are Student's t."""
    predictions, error, std = drawn(models, 400, degrees=6)
    one = Looked(predictions, None, [], [], sparse.csr_matrix((400, 1)))
    raw = STDS["ensemble"](one, None)
    shrunk = STDS["ensemble"](one, Fitted([], [], variance_prior(predictions)))
    free = 6 + models - 1
    assert z_scale(error, shrunk)[0] == pytest.approx(np.sqrt(free / (free - 2)), abs=0.15)
    assert z_scale(error, raw)[0] > 2
    off = [np.mean(np.log(kind / std) ** 2) for kind in (shrunk, raw)]
    assert off[0] < 0.5 * off[1]
    np.testing.assert_array_equal(np.argsort(shrunk[:, 0]), np.argsort(raw[:, 0]))


def test_sums_over_atoms_have_the_laplace_of_their_size(made):
    one, _ = looked(6, 4, models=1)
    sizes = np.arange(1.0, 7.0)[:, None]
    large = Looked(one.predictions, None, one.latent, one.last, one.fingerprints, sizes)
    fitted = Fitted([one.last[0].T @ one.last[0]], [0.1], np.full((2, 1), np.nan))
    means, sums = (STDS["llpr"](each, fitted) for each in (one, large))
    np.testing.assert_allclose(sums, sizes * means)


def test_z_scaled_std_has_the_rms_of_the_errors(made):
    valid, label = looked(40, 2)
    for name in ("ensemble", "llpr"):
        z = (valid.mean - label) / made.std(valid, name)
        assert np.mean(z**2) == pytest.approx(1)
        low, high = made.interval(valid, name, "normalised")
        assert np.mean((label >= low) & (label <= high)) == pytest.approx(37 / 40)


def test_distances_are_larger_outside_and_nearest_is_itself(made):
    inside, _ = looked(30, 5)
    outside, _ = looked(30, 6, shift=5.0)
    for distance in DISTANCES.values():
        assert distance(outside, made.reference).mean() > distance(inside, made.reference).mean()
    train, _ = looked(60, 1)
    assert nearest(train, made.reference) == [f"t{i}" for i in range(60)]


def test_file_gives_the_same_and_knows_its_models(made, tmp_path):
    made.save(tmp_path / "c.npz")
    back = load_calibration(tmp_path / "c.npz", ["1"])
    new, _ = looked(9, 7)
    for name in made.scales:
        np.testing.assert_array_equal(back.std(new, name), made.std(new, name))
    with pytest.raises(UserError, match="calibration of other models"):
        load_calibration(tmp_path / "c.npz", ["2"])
    (tmp_path / "bad.npz").write_bytes(b"nothing")
    with pytest.raises(UserError, match="no calibration"):
        load_calibration(tmp_path / "bad.npz", ["1"])
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(UserError, match="no calibration"):
        load_calibration(tmp_path / "other.npz", ["1"])


def test_calibration_set_is_neither_training_nor_test():
    valid = StructureSet("valid", [DATA / "valid"], most=20)
    with pytest.raises(UserError, match="is a test set"):
        check_apart(valid, StructureSet("ood", [DATA / "ood_test"]))
    with pytest.raises(UserError, match="are in the training set"):
        check_apart(StructureSet("train", [DATA / "valid"]), StructureSet("v", [DATA / "valid"]))


@pytest.mark.parametrize("place", ["ood_test2", "id-test", "split"])
def test_every_name_of_a_test_set_is_known(tmp_path, place):
    """Of these only id_test and the like were known, and a whole split was taken as it was."""
    names = [place] if place != "split" else ["split/val", "split/id_test"]
    for number, name in enumerate(names):
        write_system(tmp_path / name, symbols="C O O", seed=number)
    train = StructureSet("train", [write_system(tmp_path / "train", symbols="C H H")])
    with pytest.raises(UserError, match="is a test set by its name"):
        check_apart(train, StructureSet("valid", [tmp_path / place]))
    latest = write_system(tmp_path / "latest", symbols="C O O")
    check_apart(train, StructureSet("valid", [latest]))


def test_a_std_is_not_measured_by_that_of_another_property():
    """A millionth of the largest of all columns was the least, whatever their units."""
    std = np.array([[1e5, 1e-3], [2e5, 2e-3], [0.0, 0.0]])
    least = [[0.2, 2e-9]]
    np.testing.assert_allclose(positive(std), [*std[:2].tolist(), *least])
    predictions = np.random.default_rng(5).normal(size=(3, 40, 2))
    both, alone = variance_prior(predictions * [1e8, 1]), variance_prior(predictions[..., 1:])
    np.testing.assert_allclose(both[:, 1:], alone)


def test_one_validation_structure_is_too_few():
    """Of an ensemble it ended in a traceback."""
    train, _ = looked(60, 1)
    valid, label = looked(1, 2)
    record = {"coverage": 0.9, "num_classes": None, "seed": 0, "columns": ["gap"]}
    with pytest.raises(UserError, match=r"^1 validation structures are too few"):
        calibrate(train, [f"t{i}" for i in range(60)], valid, label, record)


def test_tables_of_scores(made):
    inside, label = looked(50, 8)
    outside, _ = looked(50, 9, shift=5.0)
    label[:10] = np.nan
    table = score_table(made, inside, label)
    assert table["std"].tolist() == ["ensemble", "llpr"]
    assert (table["structures"] == 40).all()
    low, high = made.interval(inside, "llpr", "absolute")
    within = (label >= low) & (label <= high)
    assert table["coverage_absolute"].iloc[1] == pytest.approx(within[10:].mean())
    told = telling_table(made, inside, outside).set_index("score")["auroc"]
    assert list(told.index) == ["mahalanobis", "knn", "structural", "ensemble", "llpr"]
    assert told["knn"] > 0.9
    same = telling_table(made, inside, inside)["auroc"]
    np.testing.assert_allclose(same, 0.5)
    curve = sparsification_table(made, inside, label)
    rmse = np.sqrt(np.nanmean((inside.mean - label) ** 2))
    np.testing.assert_allclose(curve.loc[curve["taken"] == 0, "rmse"], rmse)
