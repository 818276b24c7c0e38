"""Seeds and folds are aggregated each in its own way, against numpy and scipy."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from deepmd_mft.evaluation.aggregate import by_fold, difference, over_folds, over_seeds

#: Fold, and the errors of its seeds: the folds have different numbers of them.
ERRORS = {"fold_00": [1.0, 3.0], "fold_01": [5.0], "Li Fe": [4.0, 6.0, 8.0]}


def table(errors=ERRORS, model="a", test="id_test"):
    rows = [
        {"model": model, "property": "gap", "set": f"{fold}/{test}", "mae": value}
        for fold, values in errors.items()
        for value in values
    ]
    return pd.DataFrame(rows)


def test_every_fold_counts_once():
    """The mean over all files would be 4.5, and their standard deviation another one."""
    (found,) = over_folds(table(), ["model"], ["mae"]).to_dict("records")
    means = [2.0, 5.0, 6.0]
    assert (found["set"], found["folds"], found["files"]) == ("id_test", 3, 6)
    assert found["mae_mean"] == pytest.approx(np.mean(means))
    assert found["mae_std"] == pytest.approx(np.std(means))  # as the matbench package


def test_seeds_are_of_one_set():
    found = over_seeds(table(), ["model"], ["mae"]).set_index("set")
    assert found["files"].to_dict() == {f"{k}/id_test": len(v) for k, v in ERRORS.items()}
    assert found.loc["Li Fe/id_test", "mae_std"] == pytest.approx(np.std([4, 6, 8], ddof=1))
    assert np.isnan(found.loc["fold_01/id_test", "mae_std"])


def test_what_is_no_fold_is_left_out():
    plain = pd.DataFrame({"model": "a", "set": ["id_test", "id_test"], "mae": [1.0, 2.0]})
    assert over_folds(plain, ["model"], ["mae"]).empty
    assert over_folds(table({"fold_00": [1.0, 2.0]}), ["model"], ["mae"]).empty
    assert over_seeds(plain, ["model"], ["mae"])["files"].to_list() == [2]


def test_a_seed_that_failed_is_not_averaged_away():
    errors = {**ERRORS, "fold_00": [1.0, np.nan]}
    (found,) = over_folds(table(errors), ["model"], ["mae"]).to_dict("records")
    assert np.isnan(found["mae_mean"])
    assert by_fold(table(errors), ["model"], ["mae"])["mae"].isna().sum() == 1
    seeds = over_seeds(table(errors), ["model"], ["mae"]).set_index("set")
    assert seeds.loc["fold_00/id_test", ["mae_mean", "mae_std"]].isna().all()
    assert seeds.loc["Li Fe/id_test", "mae_mean"] == pytest.approx(6.0)


def test_a_difference_over_folds():
    """With independent training sets (ratio 0) it is the paired t test of scipy."""
    rng = np.random.default_rng(3)
    mine, base = rng.normal(size=(2, 5))
    found = difference(mine, base, 0.0, "mae")
    known = stats.ttest_rel(mine, base).confidence_interval(0.95)
    assert (found["low"], found["high"]) == pytest.approx((known.low, known.high))
    assert found["better"] == int((mine < base).sum())
    assert difference(mine, base, 0.0, "roc_auc")["better"] == int((mine > base).sum())
    wide = difference(mine, base, 0.25, "mae")
    factor = np.sqrt((1 / 5 + 0.25) / (1 / 5))
    assert wide["high"] - wide["mean"] == pytest.approx(factor * (known.high - found["mean"]))
    assert np.isnan(difference(mine, base, np.nan, "mae")["low"])
