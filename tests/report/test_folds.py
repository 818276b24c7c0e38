"""Folds on the page: sizes that belong together, tables fold by fold, paired differences."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deepmd_mft.report.folds import (
    differences,
    fold_tables,
    labels_in_words,
    mean_and_spread,
    pooled,
    runs_in_words,
    text_table,
    with_common_sizes,
)
from deepmd_mft.report.runs import Training


@dataclass
class FoldRun:
    """What of a run the page's folds are made from."""

    strategy: str
    fold: str
    labels: int
    seed: int = 1
    classes: bool = False
    training: Training = field(default=None)
    folder: Path = field(default=None)
    predictions: pd.DataFrame = field(default=None)
    record: dict = field(default_factory=dict)

    def __post_init__(self):
        self.training = self.training or Training(self.labels, 0.0, 1.0, [])
        name = f"{self.fold}/id_test" if self.fold else "id_test"
        self.record = self.record or {"sets": {name: {}}}
        self.folder = self.folder or Path(f"{self.fold}-{self.strategy}-s{self.seed}")
        if self.predictions is None:
            self.predictions = pd.DataFrame({"set": [name], "label": [1.0], "prediction": [2.0]})

    @property
    def sets(self):
        return list(self.record["sets"])


def table(runs, mae):
    """The errors of runs, which are also their RMSE halved."""
    rows = [
        {
            "run": run.folder.name,
            "strategy": run.strategy,
            "labels": run.training.labels,
            "set": run.sets[0],
            "test": "id_test",
            "structures": 100,
            "mae": value,
            "rmse": 2 * value,
        }
        for run, value in zip(runs, mae, strict=True)
    ]
    return pd.DataFrame(rows)


def test_folds_that_differ_by_one_label_are_of_one_size():
    """They were two strategies, and a few-shot curve, before."""
    runs = [FoldRun("scratch", f"fold_{n}", 457 + (n > 0)) for n in range(5)]
    found = with_common_sizes(runs)
    assert {run.training.labels for run in found} == {458}
    assert [run.training.counted for run in found] == [457, 458, 458, 458, 458]
    assert labels_in_words(found, 458) == "457 to 458 labels"


def test_sizes_of_a_few_shot_study_stay_apart():
    runs = [
        FoldRun(strategy, f"fold_{n}", size + n)
        for strategy in ("scratch", "ft")
        for n in range(2)
        for size in (64, 256)
        if (strategy, size) != ("ft", 64)  # only the large one
    ]
    found = with_common_sizes(runs)
    sizes = {run.strategy: set() for run in found}
    for run in found:
        sizes[run.strategy].add(run.training.labels)
    assert sizes == {"scratch": {64, 256}, "ft": {256}}
    plain = [FoldRun("ft", "", 64), FoldRun("ft", "", 65)]
    assert with_common_sizes(plain) is plain


@pytest.mark.parametrize("labels", [None, 64])
def test_sizes_that_cannot_be_matched_are_left(labels):
    runs = [FoldRun("ft", "a", 60), FoldRun("ft", "b", 64), FoldRun("ft", "b", 128)]
    runs[1].training = replace(runs[1].training, labels=labels)
    assert with_common_sizes(runs) is runs


def test_spread_of_folds_and_of_seeds():
    runs = [FoldRun("ft", fold, 100, seed) for fold in ("a", "b") for seed in (1, 2)]
    own = table(runs, [1.0, 3.0, 4.0, 8.0])
    assert mean_and_spread(own, "mae") == (4.0, 2.0, "folds")
    assert runs_in_words(own) == "2 folds x 2 seeds"
    assert runs_in_words(own.iloc[:3]) == "3 runs in 2 folds"
    seeds = [FoldRun("ft", "", 100, seed) for seed in (1, 2)]
    own = table(seeds, [1.0, 3.0])
    assert mean_and_spread(own, "mae") == pytest.approx((2.0, np.sqrt(2), "seeds"))
    assert runs_in_words(own) == "2 runs"
    assert np.isnan(mean_and_spread(table(seeds, [1.0, np.nan]), "mae")[:2]).all()
    one = table([FoldRun("ft", "a", 100)], [1.0])
    assert mean_and_spread(one, "mae")[2] == ""
    two = table([FoldRun("ft", "a", 100, seed) for seed in (1, 2)], [1.0, 3.0])
    assert mean_and_spread(two, "mae")[2] == "seeds"  # of one fold


@pytest.fixture
def compared():
    """Two strategies in four folds; FT is better by two, three, four and five."""
    runs = [FoldRun(strategy, f"fold_{n}", 400) for strategy in ("scratch", "ft") for n in range(4)]
    base = np.array([50.0, 10.0, 30.0, 70.0])
    return runs, table(runs, [*base, *(base - [2, 3, 4, 5])])


def test_differences_are_paired_by_fold(compared):
    _, errors = compared
    found = differences(errors).set_index("metric")
    assert set(found["strategy"]) == {"ft"}
    assert found.loc["mae", "mean"] == pytest.approx(-3.5)
    assert found.loc["mae", "std"] == pytest.approx(np.std([2, 3, 4, 5]))
    assert found.loc["mae", "high"] < 0  # although the folds themselves differ by far more
    assert found.loc["mae", ["folds", "better"]].tolist() == [4, 4]
    missing = errors[~((errors["strategy"] == "ft") & (errors["set"] == "fold_3/id_test"))]
    assert differences(missing).set_index("metric").loc["mae", "folds"] == 3
    assert differences(missing.iloc[:5]).empty  # one fold in common


def test_tables_of_the_page(compared):
    runs, errors = compared
    baseline = errors.iloc[:4].assign(strategy="mean", mae=100.0, rmse=100.0)
    shown = fold_tables(runs, pd.concat([errors, baseline]), "id_test")
    assert shown["columns"] == ["mean", "scratch", "FT"]
    mae, rmse = shown["metrics"]
    assert (mae["heading"], rmse["heading"]) == ("MAE", "RMSE")
    assert [row["fold"] for row in mae["rows"]] == [f"fold_{n}" for n in range(4)]
    assert mae["rows"][1]["cells"] == ["100", "10", "7.0"]
    assert [one["value"] for one in mae["means"]] == ["100", "40", "36"]
    assert mae["means"][1]["spread"] == f"{np.std([50, 10, 30, 70]):.0f}"
    (first, second) = shown["differences"]
    assert (first["pair"], first["metric"], first["better"]) == ("FT - scratch", "MAE", "4 of 4")
    assert first["words"] == second["words"] == ""
    assert "ft     400 id_test" in text_table(errors, classes=False)
    assert fold_tables(runs, errors[errors["set"] == "fold_0/id_test"], "id_test") is None


def test_classes_have_their_own_metrics(compared):
    runs, errors = compared
    for run in runs:
        run.classes = True
    errors = errors.rename(columns={"mae": "accuracy", "rmse": "roc_auc"})
    errors[["accuracy", "roc_auc"]] /= 100
    shown = fold_tables(runs, errors, "id_test")
    assert [one["heading"] for one in shown["metrics"]] == ["accuracy", "ROC-AUC"]
    assert shown["differences"][0]["better"] == "0 of 4"  # lower is worse
    assert "0.4 ± 0.22" in text_table(errors, classes=True)


def test_predictions_of_all_folds_on_one_figure():
    runs = [FoldRun("ft", fold, 100, seed) for fold in ("a", "b") for seed in (1, 2)]
    (found,) = pooled(runs)
    assert list(found.predictions["set"]) == ["a/id_test", "b/id_test"]
    assert list(found.record["sets"]) == ["a/id_test", "b/id_test"]
    assert found.folder.name == "ft-in-2-folds"
    alone = [FoldRun("ft", "", 100, 1), FoldRun("ft", "", 100, 2)]
    assert pooled(alone) == alone[:1]
