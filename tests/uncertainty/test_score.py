"""Scores against closed forms."""

import numpy as np
import pytest
from scipy.stats import norm

from deepmd_mft.uncertainty.score import (
    auroc,
    coverage,
    ence,
    miscalibration_area,
    nll,
    sparsification,
    spearman,
    width,
)


def test_nll_is_that_of_a_normal_distribution():
    error, std = np.array([0.3, -1.0, 2.0]), np.array([0.5, 1.0, 3.0])
    assert nll(error, std) == pytest.approx(-norm.logpdf(error, scale=std).mean())


def test_miscalibration_area_of_certain_and_of_calibrated_errors():
    std = np.ones(2000)
    assert miscalibration_area(np.zeros(2000), std) == pytest.approx(0.5, abs=1e-3)
    assert miscalibration_area(np.full(2000, 50.0), std) == pytest.approx(0.5, abs=1e-3)
    quantiles = norm.ppf((np.arange(2000) + 0.5) / 2000)
    assert miscalibration_area(quantiles, std) < 2e-3
    # A std k times too large: the area is the integral of |2 Phi(k z) - 1 - p| over p.
    p = (np.arange(200_000) + 0.5) / 200_000
    exact = np.mean(np.abs(2 * norm.cdf(2 * norm.ppf(0.5 + p / 2)) - 1 - p))
    assert miscalibration_area(quantiles, 2 * std) == pytest.approx(exact, abs=2e-3)


def test_ence_of_errors_that_are_a_multiple_of_std():
    std = np.linspace(1, 2, 100)
    sign = np.where(np.arange(100) % 2, 1, -1)
    assert ence(sign * std, std) == pytest.approx(0, abs=1e-12)
    assert ence(sign * std * 1.5, std) == pytest.approx(0.5)


def test_ranks_coverage_width_and_auroc():
    error, std = np.array([0.1, -0.2, 0.3]), np.array([1.0, 2.0, 3.0])
    assert spearman(error, std) == pytest.approx(1)
    assert np.isnan(spearman(error, np.ones(3)))
    label, low, high = np.array([0.0, 1.0]), np.array([-1.0, 2.0]), np.array([1.0, 4.0])
    assert (coverage(label, low, high), width(low, high)) == (0.5, 2.0)
    assert auroc(np.array([1.0, 2.0]), np.array([3.0, 4.0])) == 1
    assert auroc(np.array([1.0, 4.0]), np.array([2.0, 3.0])) == 0.5


def test_sparsification_takes_the_least_certain_first():
    curve = sparsification(np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 2.0, 3.0, 4.0]), points=4)
    np.testing.assert_allclose(curve[:, 0], [0, 0.25, 0.5, 0.75])
    expected = [np.sqrt(np.mean(np.arange(1, n + 1) ** 2)) for n in (4, 3, 2, 1)]
    np.testing.assert_allclose(curve[:, 1], expected)
