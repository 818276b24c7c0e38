"""Bias and scale of a property head."""

import numpy as np
import pytest

from deepmd_mft.errors import UserError
from deepmd_mft.models.statistics import RIDGE, fit_output_statistics


def fit(labels, counts, readout="mean", bias="element"):
    return fit_output_statistics(
        np.asarray(labels), np.asarray(counts), readout=readout, bias=bias, property_name="gap"
    )


@pytest.fixture
def compositions():
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 9, size=(200, 4))
    counts[:, 0] += 1
    return counts, np.array([0.3, -0.1, 0.7, 0.2])


@pytest.mark.parametrize("readout", ["mean", "sum"])
def test_element_bias_recovers_additive_labels(compositions, readout):
    counts, truth = compositions
    labels = counts @ truth
    if readout == "mean":
        labels = labels / counts.sum(axis=1)
    result = fit(labels, counts, readout)
    np.testing.assert_allclose(result.bias[:, 0], truth, atol=20 * RIDGE)


def test_equation_17_weighs_frames_by_their_atoms():
    # Two compositions cannot be fitted exactly by one element: N_k p = N_k y_k in least squares.
    counts, labels = np.array([[1], [3]]), np.array([1.0, 2.0])
    assert fit(labels, counts).bias[0, 0] == pytest.approx((1 * 1.0 + 9 * 2.0) / 10)


def test_absent_element_gets_an_average_value_not_zero(compositions):
    counts, truth = compositions
    counts = np.column_stack([counts, np.zeros(len(counts), dtype=int)])
    labels = 5.0 + (counts[:, :4] @ truth) / counts.sum(axis=1)
    result = fit(labels, counts)
    assert list(result.unseen) == [False] * 4 + [True]
    assert result.bias[4, 0] == pytest.approx(labels.mean(), abs=0.1)


def test_rank_deficient_compositions_are_stable():
    # ABO3: the columns are linearly dependent.
    rng = np.random.default_rng(1)
    counts = np.zeros((50, 7), dtype=int)
    counts[:, 6] = 3
    counts[np.arange(50), rng.integers(0, 3, 50)] = 1
    counts[np.arange(50), rng.integers(3, 6, 50)] = 1
    labels = 2.0 + 0.1 * rng.normal(size=50)
    result = fit(labels, counts)
    assert np.abs(result.bias).max() < 5
    assert result.scale[0] == pytest.approx(labels.std(), rel=0.2)


@pytest.mark.parametrize("bias", ["element", "mean", "none"])
@pytest.mark.parametrize("readout", ["mean", "sum", "max"])
def test_a_change_of_unit_only_multiplies(compositions, bias, readout):
    counts, truth = compositions
    labels = counts @ truth + np.random.default_rng(2).normal(size=len(counts))
    one, other = (fit(factor * labels, counts, readout, bias) for factor in (1.0, 27.211))
    np.testing.assert_allclose(other.bias, 27.211 * one.bias, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(other.scale, 27.211 * one.scale, rtol=1e-9)


def test_scale_of_an_extensive_label_is_per_atom(compositions):
    counts, truth = compositions
    natoms = counts.sum(axis=1)
    noise = np.random.default_rng(3).normal(size=len(counts))
    result = fit(counts @ truth + natoms * noise, counts, "sum")
    assert result.scale[0] == pytest.approx(noise.std(), rel=0.1)


def test_scale_has_a_floor():
    # Two frames and two elements: the bias fits both labels exactly.
    labels = np.array([1.0, 3.0])
    result = fit(labels, np.array([[1, 0], [0, 1]]))
    assert result.scale[0] >= 1e-3 * labels.std()


def test_missing_labels_are_left_out(compositions):
    counts, truth = compositions
    labels = np.column_stack([counts @ truth, counts @ truth])
    labels[::2, 1] = np.nan
    result = fit(labels, counts, "sum")
    half = fit(labels[1::2, :1], counts[1::2], "sum")
    np.testing.assert_allclose(result.bias[:, 1], half.bias[:, 0])


@pytest.mark.parametrize(
    ("labels", "message"),
    [([np.nan, np.nan], "no label at all"), ([1.0, np.nan], "one labelled"), ([2.0, 2.0], "is 2")],
)
def test_labels_that_teach_nothing_are_refused(labels, message):
    with pytest.raises(UserError, match=message):
        fit(labels, np.array([[1, 2], [2, 1]]))


@pytest.mark.parametrize("bias", ["element", "mean"])
def test_a_lone_atom_does_not_spoil_the_bias_of_distances(bias):
    """It is its own centre of mass, so that no bias counts in its frame."""
    weights = np.array([[0.0, 0.0], [2.0, 1.0], [1.0, 4.0], [3.0, 3.0]])
    counts = np.array([[1, 0], [2, 1], [1, 2], [2, 2]])
    labels = np.array([0.5, 3.0, 5.0, 6.0])
    result = fit_output_statistics(
        labels, counts, weights, readout="sum", bias=bias, property_name="r2"
    )
    np.testing.assert_allclose(result.bias[:, 0], 1.0, atol=20 * RIDGE)
    left = np.array([0.5, 0.0, 0.0, 0.0])
    assert result.scale[0] == pytest.approx(np.sqrt(np.mean(left**2)), rel=0.01)


def test_only_lone_atoms_have_no_bias():
    result = fit_output_statistics(
        np.array([1.0, 3.0]),
        np.array([[1, 0], [0, 1]]),
        np.zeros((2, 2)),
        readout="sum",
        bias="element",
        property_name="r2",
    )
    np.testing.assert_array_equal(result.bias, 0.0)
    assert result.scale[0] == pytest.approx(np.sqrt(5.0))


@pytest.mark.parametrize("bias", ["element", "mean", "none"])
@pytest.mark.parametrize("readout", ["mean", "sum", "max"])
def test_frames_whose_atoms_are_all_excluded_do_not_count(compositions, readout, bias):
    """atom_exclude_types leaves no atom to count in them."""
    counts, truth = compositions
    labels = counts @ truth
    more = np.vstack([counts, np.zeros((3, 4), dtype=int)])
    one, other = (
        fit(labels, counts, readout, bias),
        fit([*labels, 7.0, 8.0, 9.0], more, readout, bias),
    )
    np.testing.assert_allclose(other.bias, one.bias)
    np.testing.assert_allclose(other.scale, one.scale)
