"""Differences of strategies, drawn on the same structures."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from deepmd_mft.report.errors import _composition, digits, gains, kind_of_set
from deepmd_mft.structures.pooling import Pooling
from deepmd_mft.structures.structure import Structure
from deepmd_mft.structures.structure_set import StructureSet


def run(strategy, errors, labels=100):
    """A run with an error for every structure of its sets."""
    every = np.concatenate([np.asarray(one, float) for one in errors.values()])
    sets = np.repeat(list(errors), [len(one) for one in errors.values()])
    return SimpleNamespace(
        strategy=strategy,
        classes=False,
        training=SimpleNamespace(labels=labels),
        sets=list(errors),
        predictions=pd.DataFrame({"set": sets, "label": 0.0}),
        losses=lambda: every**2,
    )


def test_a_difference_that_every_structure_shares_is_told_apart():
    """Errors differ by a factor of 100 between structures, but FT is 10 % better on each."""
    base = np.geomspace(0.01, 1.0, 30)
    (gain,) = gains([run("scratch", {"ood_test": base}), run("ft", {"ood_test": 0.9 * base})])
    assert (gain.mean, gain.low, gain.high) == pytest.approx((10.0, 10.0, 10.0))
    assert gain.told_apart


def test_noise_is_not_told_apart():
    rng = np.random.default_rng(0)
    base, other = rng.normal(size=(2, 30))
    (gain,) = gains([run("scratch", {"id_test": base}), run("lp", {"id_test": other})])
    assert gain.low < 0 < gain.high
    assert not gain.told_apart


def test_runs_on_both_sides_of_scratch_are_not_told_apart():
    base = np.ones(50)
    several = [run("mft", {"id_test": base * factor}) for factor in (0.5, 1.02)]
    (gain,) = gains([run("scratch", {"id_test": base}), *several])
    assert gain.low > 0
    assert not gain.told_apart


def test_a_run_that_failed_is_not_averaged_away():
    """The gain was that of the other run alone, before."""
    base, names = np.ones(50), ("id_test", "ood_test")
    good = run("ft", dict.fromkeys(names, 0.9 * base))
    failed = run("ft", {"id_test": base * np.nan, "ood_test": 0.9 * base})
    found = gains([run("scratch", dict.fromkeys(names, base)), good, failed])
    assert [(one.test, len(one.each)) for one in found] == [("ood_test", 2)]


def test_sets_sizes_and_folds_stay_apart():
    folds = {"fold_00/ood_test": [1.0, 1.0], "fold_01/ood_test": [1.0]}
    runs = [
        *(run("scratch", {name: one}) for name, one in folds.items()),
        run("ft", {"fold_00/ood_test": [0.5, 0.5]}),
        run("ft", {"fold_01/ood_test": [1.0]}),
        run("ft", {"fold_00/ood_test": [0.1, 0.1]}, labels=50),  # nothing to compare with
    ]
    (gain,) = gains(runs)
    assert (gain.test, gain.labels) == ("ood_test", 100)
    assert gain.mean == pytest.approx(100 * (1 - np.sqrt((0.25 + 0.25 + 1) / 3)))
    assert sorted(gain.each) == pytest.approx([0.0, 50.0])


@pytest.mark.parametrize(
    ("value", "structures", "text"),
    [
        (0.012345, 29, "0.012"),
        (0.012345, 300, "0.0123"),
        (0.012345, 50_000, "0.01235"),
        (123.456, 29, "123"),
        (0.0, 10, "0.0"),
        (float("nan"), 10, "nan"),
    ],
)
def test_digits(value, structures, text):
    assert digits(value, structures) == text


def test_kinds():
    names = ("ood_far", "fold_00/id_test", "test")
    assert [kind_of_set(name) for name in names] == ["OOD", "ID", "test"]


def test_the_composition_of_a_group_is_the_mean_of_its_structures():
    """Methane and water are one group, water alone the other."""
    methane, water = (
        Structure(np.array(z), np.eye(5, 3)[: len(z)]) for z in ([6, 1, 1, 1, 1], [8, 1, 1])
    )
    labels = [{"group": float(number)} for number in (3, 3, 5)]
    found = _composition(
        Pooling(StructureSet.of("set", [methane, water, water], labels)), intensive=True
    )
    expected = np.zeros((2, 119))
    expected[0, [1, 6, 8]] = (0.8 + 2 / 3) / 2, 0.1, 1 / 6
    expected[1, [1, 8]] = 2 / 3, 1 / 3
    np.testing.assert_allclose(found, expected)
