"""TransRate against a direct implementation of its definition."""

import numpy as np
import pytest

from deepmd_mft.errors import UserError
from deepmd_mft.representations.transrate import bin_target, coding_rate, layer_profile, transrate


def definition(features, classes, epsilon):
    """Equations of Huang et al. 2022, with the n x n matrix instead of the d x d one."""
    z = features - features.mean(axis=0)

    def rate(rows):
        gram = np.eye(len(rows)) + rows @ rows.T / (len(rows) * epsilon)
        return 0.5 * np.log(np.linalg.det(gram))

    within = sum(np.mean(classes == c) * rate(z[classes == c]) for c in set(classes))
    return rate(z) - within


@pytest.mark.parametrize("epsilon", [1e-2, 1.0])
def test_transrate_is_its_definition(epsilon):
    rng = np.random.default_rng(0)
    features, classes = rng.normal(size=(30, 4)), rng.integers(3, size=30)
    expected = definition(features, classes, epsilon)
    assert transrate(features, classes, epsilon=epsilon) == pytest.approx(expected, rel=1e-9)


def test_coding_rate_of_independent_columns():
    """Columns of length sqrt(n) and no overlap: d/2 log(1 + 1/epsilon)."""
    features = np.sqrt(8) * np.eye(8)[:, :3]
    assert coding_rate(features, epsilon=0.5) == pytest.approx(1.5 * np.log(3))


def test_separated_classes_tell_more_than_mixed_ones():
    rng = np.random.default_rng(1)
    classes = np.repeat([0, 1, 2], 200)
    mixed = rng.normal(size=(600, 6))
    apart = mixed + 5 * np.eye(6)[classes]
    assert transrate(apart, classes) > 5 * transrate(mixed, classes) > 0


def test_it_does_not_depend_on_order_and_rotation():
    rng = np.random.default_rng(2)
    features, classes = rng.normal(size=(90, 5)), rng.integers(3, size=90)
    rotation = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    order = rng.permutation(90)
    turned = transrate((features @ rotation + 2)[order], classes[order])
    assert turned == pytest.approx(transrate(features, classes), rel=1e-9)


def test_profile_is_normalised_and_free_of_scale():
    rng = np.random.default_rng(3)
    classes = np.repeat([0, 1], 100)
    told = rng.normal(size=(200, 4)) * 0.01 + np.eye(4)[classes]
    silent = rng.normal(size=(200, 4))
    profile = layer_profile(np.stack([silent, told, 1000 * told, np.ones_like(told)]), classes)
    assert profile[1] == pytest.approx(profile[2], rel=1e-9)
    assert 0 <= profile[0] < profile[1] <= 1
    assert profile[3] == 0.0


def test_binning():
    values = np.random.default_rng(4).normal(size=200)
    bins = bin_target(values, nbins=4)
    assert np.bincount(bins).tolist() == [50, 50, 50, 50]
    assert values[bins == 0].max() < values[bins == 3].min()
    assert bin_target(np.array([0.0, 5.0, 5.0])).tolist() == [0, 1, 1]  # already classes
    with pytest.raises(UserError, match="the same in all"):
        bin_target(np.ones(100))
    with pytest.raises(UserError, match="too few"):
        bin_target(np.arange(20.0))
