"""Distances against closed forms and POT."""

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from deepmd_mft.errors import UserError
from deepmd_mft.representations.drift import (
    drift,
    linear_cka,
    sliced_wasserstein,
    spread,
    wasserstein,
    weight_drift,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_a_shifted_copy_is_as_far_as_the_shift(rng):
    points = rng.normal(size=(300, 7))
    shift = rng.normal(size=7)
    assert wasserstein(points, points + shift) == pytest.approx(np.linalg.norm(shift), rel=1e-9)


def test_a_permuted_set_is_at_no_distance(rng):
    points = rng.normal(size=(300, 7))
    assert wasserstein(points, rng.permutation(points)) == pytest.approx(0.0, abs=1e-12)
    assert wasserstein(points, points.copy()) == 0.0


def test_one_dimension_is_the_mean_of_sorted_differences(rng):
    first, second = rng.normal(size=(400, 1)), 2 * rng.normal(size=(400, 1)) + 1
    expected = np.abs(np.sort(first[:, 0]) - np.sort(second[:, 0])).mean()
    assert wasserstein(first, second) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("sizes", [(150, 150), (60, 45)])
def test_unequal_numbers_too(rng, sizes):
    """Against scipy: every point of both sets repeated until the sets are of one size."""
    first, second = rng.normal(size=(sizes[0], 12)), 1.3 * rng.normal(size=(sizes[1], 12)) + 0.2
    size = int(np.lcm(*sizes))
    cost = cdist(*(np.repeat(x, size // len(x), axis=0) for x in (first, second)))
    expected = cost[linear_sum_assignment(cost)].mean()
    assert wasserstein(first, second) == pytest.approx(expected, rel=1e-9)


def test_distances_do_not_depend_on_rotation(rng):
    first, second = rng.normal(size=(200, 6)), 2 * rng.normal(size=(200, 6))
    rotation = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    turned = wasserstein(first @ rotation, second @ rotation)
    assert turned == pytest.approx(wasserstein(first, second), rel=1e-9)
    assert linear_cka(first, first @ rotation * 3 + 1) == pytest.approx(1.0)


def test_sliced_distance_of_a_shift(rng):
    """Mean over directions of |shift . direction|, known for a shift in three dimensions: 1/2."""
    points = rng.normal(size=(100, 3))
    shifted = points + np.array([0.0, 0.0, 2.0])
    assert sliced_wasserstein(points, shifted, directions=20_000) == pytest.approx(1.0, rel=0.02)
    assert sliced_wasserstein(points, points) == 0.0


def test_cka_is_the_mean_centred_kernel_alignment(rng):
    first, second = rng.normal(size=(50, 4)), rng.normal(size=(50, 9))
    centre = np.eye(50) - 1 / 50
    k, m = centre @ first @ first.T @ centre, centre @ second @ second.T @ centre
    expected = np.sum(k * m) / np.linalg.norm(k) / np.linalg.norm(m)
    assert linear_cka(first, second) == pytest.approx(expected)
    assert np.isnan(linear_cka(first, np.ones((50, 2))))


def test_all_measures_together(rng):
    first = rng.normal(size=(150, 5)).astype(np.float32)
    none = drift(first, first.copy(), bootstrap=2)
    assert (none.wasserstein, none.low, none.high, none.sliced, none.relative) == (0, 0, 0, 0, 0)
    assert none.cka == pytest.approx(1.0)
    moved = drift(first, first + 1, bootstrap=3, seed=4)
    assert moved.low == pytest.approx(np.sqrt(5), rel=1e-5)
    assert moved.high == pytest.approx(np.sqrt(5), rel=1e-5)
    assert moved.relative == pytest.approx(np.sqrt(5) / spread(first), rel=1e-5)


def test_different_widths_are_refused(rng):
    with pytest.raises(UserError, match="5 and 6 columns"):
        wasserstein(rng.normal(size=(10, 5)), rng.normal(size=(10, 6)))


def test_weight_drift_by_layer():
    start = {
        "type_embedding.embedding.layers.0.matrix": torch.tensor([3.0, 4.0]),
        "repflows.edge_embd.matrix": torch.tensor([1.0]),
        "repflows.layers.0.a.matrix": torch.tensor([[2.0, 0.0]]),
        "repflows.layers.1.a.matrix": torch.tensor([[0.0, 2.0]]),
        "repflows.layers.1.b.bias": torch.zeros(3),
    }
    moved = {name: value.clone() for name, value in start.items()}
    assert set(weight_drift(start, moved).values()) == {0.0}
    moved["repflows.layers.1.b.bias"] += 1.0
    moved["type_embedding.embedding.layers.0.matrix"] *= 2
    found = weight_drift(start, moved)
    assert list(found) == ["type_embedding", "edge_embd", "layer 1", "layer 2", "all"]
    assert found["type_embedding"] == pytest.approx(1.0)
    assert found["layer 1"] == 0.0
    assert found["layer 2"] == pytest.approx(np.sqrt(3) / 2)
    assert found["all"] == pytest.approx(np.sqrt((25 + 3) / (25 + 1 + 4 + 4)))
    moved["repflows.edge_embd.matrix"] = torch.zeros(2)
    with pytest.raises(UserError, match=r"repflows\.edge_embd\.matrix"):
        weight_drift(start, moved)
