"""The KDE behind the BOOM splits, against scikit-learn's own."""

import numpy as np
import pytest
from sklearn.neighbors import KernelDensity

from deepmd_mft.splits.density import (
    lowest_density,
    scott_bandwidth,
    scott_log_density,
)


def _sklearn(values: np.ndarray) -> np.ndarray:
    kde = KernelDensity(kernel="gaussian", bandwidth="scott")
    column = values.reshape(-1, 1)
    return np.asarray(kde.fit(column).score_samples(column))


def _draw(kind: str, n: int) -> np.ndarray:
    rng = np.random.default_rng(7)
    if kind == "normal":
        return rng.normal(size=n)
    if kind == "tails":
        return rng.standard_cauchy(size=n) * 5.0
    if kind == "two humps":
        return np.concatenate([rng.normal(-3, 0.2, n // 2), rng.normal(4, 1, n - n // 2)])
    return np.round(rng.gamma(4.0, 1.0, size=n), 2)  # "duplicates"


@pytest.mark.parametrize("kind", ["normal", "tails", "two humps", "duplicates"])
@pytest.mark.parametrize("scale", [1e-3, 0.05, 1.0, 30.0, 1000.0])
def test_equals_scikit_learn(kind: str, scale: float) -> None:
    values = scale * _draw(kind, 1500)
    np.testing.assert_allclose(scott_log_density(values), _sklearn(values), rtol=0, atol=1e-10)


@pytest.mark.parametrize("n", [1, 2, 13, 14])
def test_few_values(n: int) -> None:
    values = np.linspace(0.0, 0.1, n)
    np.testing.assert_allclose(scott_log_density(values), _sklearn(values), atol=1e-12)


def test_bandwidth_is_not_scaled_by_the_spread() -> None:
    assert scott_bandwidth(32) == pytest.approx(0.5)
    kde = KernelDensity(bandwidth="scott").fit(np.linspace(0, 900, 32).reshape(-1, 1))
    assert scott_bandwidth(32) == pytest.approx(kde.bandwidth_)


@pytest.mark.parametrize("scale", [0.05, 1.0, 280.0])
def test_size_of_qm9(scale: float) -> None:
    values = scale * np.random.default_rng(1).normal(size=130_831)
    found = scott_log_density(values)
    some = np.random.default_rng(2).choice(values.size, 20, replace=False)
    h = scott_bandwidth(values.size)
    for i in some:
        kernels = np.exp(-0.5 * ((values - values[i]) / h) ** 2)
        density = kernels.sum() / (values.size * h * np.sqrt(2 * np.pi))
        assert found[i] == pytest.approx(np.log(density), abs=1e-10)


def test_lowest_density_takes_the_tails_and_breaks_ties_by_index() -> None:
    values = np.array([0.0, 9.0, 0.1, -9.0, 0.0, 9.0, 0.05])
    log_density = scott_log_density(values)
    assert log_density[1] == log_density[5]
    np.testing.assert_array_equal(lowest_density(values, 3), [3, 1, 5])
    np.testing.assert_array_equal(lowest_density(np.zeros(5), 3), [0, 1, 2])
    assert lowest_density(values, 0).size == 0


@pytest.mark.parametrize(
    ("values", "n", "message"),
    [
        (np.zeros((2, 2)), 1, "one-dimensional"),
        (np.zeros(0), 0, "not empty"),
        (np.array([0.0, np.nan, np.inf]), 1, "2 of 3 values .* index 1"),
        (np.zeros(3), 4, "cannot take 4 of 3"),
    ],
)
def test_refuses(values: np.ndarray, n: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lowest_density(values, n)
