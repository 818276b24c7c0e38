"""What a report says of calibrated ensembles: how far their predictions can be believed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from deepmd_mft.errors import UserError
from deepmd_mft.evaluation.folds import TESTS, without_fold
from deepmd_mft.evaluation.tables import read_evaluation
from deepmd_mft.report.errors import digits
from deepmd_mft.report.strategy import STRATEGIES
from deepmd_mft.uncertainty.tables import INSIDE

if TYPE_CHECKING:
    from pathlib import Path

    from deepmd_mft.report.runs import Run

__all__ = ["Trust", "load_trust", "telling_rows", "trust_tables"]

#: Scores of a standard deviation as the page names them.
HEADINGS = {
    "nll": "NLL",
    "miscalibration_area": "miscalibration area",
    "ence": "ENCE",
    "spearman": "rank correlation of error and std",
}
TABLES = ("trust", "estimates")


@dataclass(frozen=True)
class Trust:
    """A calibrated evaluation of some runs as one ensemble.

    Attributes
    ----------
    folder : Path
    strategy : str
        Of its runs.
    runs : list of str
    labels : int or None
        Of the training set.
    coverage : float
        That the intervals are made for.
    scores, telling, estimates : pd.DataFrame
        ``trust.csv``, ``telling.csv`` (empty without an ``id_test``) and ``estimates.csv``.
    """

    folder: Path
    strategy: str
    runs: list[str]
    labels: int | None
    coverage: float
    scores: pd.DataFrame
    telling: pd.DataFrame
    estimates: pd.DataFrame

    @property
    def stds(self) -> list[str]:
        """The names of its standard deviations."""
        return list(dict.fromkeys(self.scores["std"]))

    @property
    def tests(self) -> list[str]:
        """Its test sets."""
        return list(dict.fromkeys(self.scores["set"]))

    def errors(self, test: str, std: str) -> tuple[np.ndarray, np.ndarray]:
        """Return errors and standard deviations of the labelled structures of a set."""
        part = self.estimates[self.estimates["set"] == test]
        part = part[np.isfinite(part["label"])]
        return (part["prediction"] - part["label"]).to_numpy(), part[f"std_{std}"].to_numpy()

    def scores_of(self, test: str) -> dict[str, np.ndarray]:
        """Return by name what is larger the farther from the training set a structure may be."""
        part = self.estimates[self.estimates["set"] == test]
        names = [name for name in part if name.startswith(("ood_", "std_"))]
        return {name.partition("_")[2]: part[name].to_numpy() for name in names}


def load_trust(folders: list[Path], runs: list[Run]) -> list[Trust]:
    """Read calibrated evaluations, each of runs of one strategy.

    Parameters
    ----------
    folders : list of Path
        Of ``dp-mft evaluate --calibration``; the ``evaluation/`` of a run that is one, of runs of
        the report alone, is found.
    runs : list of Run

    Raises
    ------
    UserError
        If a folder is none, or one of other models, data or strategies.
    """
    own = [run.folder / "evaluation" for run in runs if _is_calibrated(run, runs)]
    every = list(dict.fromkeys(path.resolve() for path in [*folders, *own]))
    if folders and runs[0].classes:
        raise UserError(
            f"{folders[0]} is of classes; the report shows calibrated numbers only: its trust.csv "
            "and reliability.csv have the scores of calibrated probabilities"
        )
    found = [_load(folder, runs) for folder in every]
    first: dict[tuple[str, ...], Path] = {}
    for one in found:
        other = first.setdefault(tuple(sorted(one.runs)), one.folder)
        if other != one.folder:
            raise UserError(f"{other} and {one.folder} are of the same runs; give one of them")
    return sorted(found, key=lambda one: list(STRATEGIES).index(one.strategy))


def _is_calibrated(run: Run, runs: list[Run]) -> bool:
    """Whether the evaluation of a run is a calibrated one, of numbers and of these runs alone."""
    known = {one.model["sha256"] for one in runs}
    others = [one for one in run.record["models"] if one["sha256"] not in known]
    return "calibration" in run.record and not run.classes and not others


def _load(folder: Path, runs: list[Run]) -> Trust:
    record = read_evaluation(folder)[1]
    if "calibration" not in record:
        raise UserError(
            f"{folder} is an evaluation without a calibration; make one with `dp-mft calibrate` "
            "and evaluate with --calibration FILE"
        )
    own = _runs_of(folder, record, runs)
    names = _names_of_sets(folder, record, own[0])
    property_name = own[0].property_name
    scores, estimates = (_read(folder / f"{table}.csv") for table in TABLES)
    parts = [_of(table, names, property_name) for table in (scores, estimates)]
    if parts[0].empty:
        raise UserError(f"{folder} has no scores of {property_name}; evaluate again")
    place = folder / "telling.csv"
    telling = _of(_read(place), names, None) if place.is_file() else pd.DataFrame()
    return Trust(
        folder,
        own[0].strategy,
        [run.folder.name for run in own],
        own[0].training.labels,
        record["calibration"]["coverage"],
        parts[0],
        telling,
        parts[1],
    )


def _runs_of(folder: Path, record: dict[str, Any], runs: list[Run]) -> list[Run]:
    known = {run.model["sha256"]: run for run in runs}
    foreign = [one["path"] for one in record["models"] if one["sha256"] not in known]
    if foreign:
        raise UserError(
            f"{folder} was evaluated with {', '.join(foreign)}, which "
            f"{'is the model' if len(foreign) == 1 else 'are models'} of no run here; name the "
            "runs too, or evaluate the models of these runs again (with a calibration of them)"
        )
    own = [known[one["sha256"]] for one in record["models"]]
    strategies = {run.strategy: run.folder.name for run in own}
    if len(strategies) > 1:
        listed = ", ".join(f"{run} ({strategy})" for strategy, run in strategies.items())
        raise UserError(
            f"{folder} mixes strategies: {listed}; an ensemble of the report is of seeds of one, "
            "calibrate and evaluate each"
        )
    return own


def _names_of_sets(folder: Path, record: dict[str, Any], run: Run) -> dict[str, str]:
    """Return by the evaluation's name of a set that of the run's test set with the same data."""
    data = {
        tuple(part["sha256"] for part in one["folders"]): name
        for name, one in record["sets"].items()
    }
    wanted = {
        name: tuple(part["sha256"] for part in one["folders"])
        for name, one in run.record["sets"].items()
    }
    # A run may have been evaluated on its training data too, which no calibration is asked about.
    tests = [name for name in wanted if without_fold(name).startswith(TESTS)] or list(wanted)
    absent = [name for name in tests if wanted[name] not in data]
    if absent:
        raise UserError(
            f"{folder} was not evaluated on the data of {', '.join(absent)} of {run.folder.name}; "
            "evaluate both on the same sets"
        )
    return {data[own]: without_fold(name) for name, own in wanted.items() if own in data}


def _read(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, dtype={"set": str, "id": str, "column": str})
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); evaluate again") from None


def _of(table: pd.DataFrame, names: dict[str, str], property_name: str | None) -> pd.DataFrame:
    part = table[table["set"].isin(names)]
    if property_name is not None:
        part = part[part["column"] == property_name]
    return part.assign(set=part["set"].map(names))


def trust_tables(found: list[Trust], tests: list[str]) -> list[dict[str, Any]]:
    """Return a table for each test set, with a row for each ensemble and standard deviation."""
    return [
        {
            "name": test,
            "intervals": _intervals(found[0]),
            "headings": HEADINGS.values(),
            "rows": [
                _row(one, row)
                for one in found
                for _, row in one.scores[one.scores["set"] == test].iterrows()
            ],
        }
        for test in tests
        if any(test in one.tests for one in found)
    ]


def _intervals(one: Trust) -> list[str]:
    return [n.partition("_")[2] for n in one.scores if n.startswith("coverage_")]


def _row(one: Trust, row: pd.Series) -> dict[str, Any]:
    structures = int(row["structures"])
    cells = [
        {
            "value": f"{100 * row[f'coverage_{kind}']:.1f} %",
            "below": f"width {digits(row[f'width_{kind}'], structures)}",
        }
        for kind in _intervals(one)
    ]
    cells += [{"value": digits(row[name], structures), "below": ""} for name in HEADINGS]
    return {**_words(one), "std": row["std"], "cells": cells}


def _words(one: Trust) -> dict[str, str]:
    labels = "" if one.labels is None else f", {one.labels} labels"
    return {"name": STRATEGIES[one.strategy], "runs": ", ".join(one.runs) + labels}


def telling_rows(found: list[Trust]) -> dict[str, Any]:
    """Return the table of AUROCs: a row for each ensemble and set that is told from ``id_test``."""
    told = [one for one in found if len(one.telling)]
    scores = list(dict.fromkeys(name for one in told for name in one.telling["score"]))
    rows = []
    for one in told:
        for test in dict.fromkeys(one.telling["set"]):
            own = one.telling[one.telling["set"] == test].set_index("score")["auroc"]
            cells = [f"{own[name]:.3f}" if name in own else "" for name in scores]
            rows.append({**_words(one), "set": test, "cells": cells})
    return {"inside": INSIDE, "scores": scores, "rows": rows}
