"""Put figures and tables on one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np

from deepmd_mft.evaluation.folds import fold_of_set
from deepmd_mft.files.records import write_record
from deepmd_mft.files.staging import check_file, check_folder, staged_file, staged_folder
from deepmd_mft.plots import report as figures
from deepmd_mft.plots.classes import class_figures
from deepmd_mft.plots.trust import trust_figures
from deepmd_mft.report.classes import absent_classes
from deepmd_mft.report.errors import (
    BASELINES,
    Gain,
    digits,
    error_table,
    gains,
    gains_table,
    kind_of_set,
)
from deepmd_mft.report.folds import (
    fold_tables,
    labels_in_words,
    mean_and_spread,
    pooled,
    runs_in_words,
    with_common_sizes,
    write_folds,
)
from deepmd_mft.report.paper import Published, published
from deepmd_mft.report.provenance import choices, described, leaks, splits
from deepmd_mft.report.runs import Run, check_comparable, unlike_seeds
from deepmd_mft.report.strategy import STRATEGIES
from deepmd_mft.report.trust import telling_rows, trust_tables

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from deepmd_mft.plots.drawing import Drawing
    from deepmd_mft.report.trust import Trust

#: Columns of the table: metric and heading.
NUMBERS = (("rmse", "RMSE"), ("mae", "MAE"), ("r2", "R2"))
CLASSES = (("accuracy", "accuracy"), ("roc_auc", "ROC-AUC"), ("f1", "F1"))


def _read(run: Run) -> list[Path]:
    """Return what the page is made from, which it must not replace."""
    names = ("evaluation", "input.json", "out.json", "lcurve.out")
    model = Path(run.model["path"])
    return [*(run.folder / name for name in names), model, *run.training.systems]


def write_report(
    runs: list[Run],
    out: Path,
    *,
    trusted: Sequence[Trust] = (),
    unit: str | None,
    title: str | None,
    overwrite: bool,
) -> list[Path]:
    """Write the page, and beside it a folder with every figure as PNG and its numbers as CSV.

    Parameters
    ----------
    runs : list of Run
    out : Path
        The HTML file.
    trusted : sequence of Trust
        Calibrated evaluations.
    unit, title : str, optional
        Unit of the property; heading of the page.
    overwrite : bool
        Replace both.

    Returns
    -------
    list of Path
        The page and the folder.
    """
    files = out.with_name(f"{out.stem}_files")
    read = [path for run in runs for path in _read(run)] + [one.folder for one in trusted]
    check_file(out, read, overwrite=overwrite)
    check_folder(files, "report", read, overwrite=overwrite)
    check_comparable(runs)
    runs = with_common_sizes(runs)
    table = error_table(runs)
    found = gains(runs)
    known_unit = unit or _unit(runs)
    paper = published(runs[0].property_name, known_unit, _split_method(runs))
    unit = "classes" if runs[0].classes else _in_words(known_unit)
    drawings = _drawings(runs, table, found, unit, paper)
    trust = _trust(list(trusted), figures.tests_of(table), unit)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    several = f"{len(runs)} runs" if len(runs) > 1 else "one run"
    page = environment.get_template("page.html").render(
        title=title or f"{runs[0].property_name}: {several}{_where(table)}",
        tables=[_test_table(runs, table, found, test, paper) for test in figures.tests_of(table)],
        folds=[
            one
            for test in figures.tests_of(table)
            if (one := fold_tables(runs, table, test)) is not None
        ],
        headings=CLASSES if runs[0].classes else NUMBERS,
        notes=[
            *unlike_seeds(runs),
            *leaks(runs),
            *(absent_classes(runs) if runs[0].classes else []),
            *(note for run in runs for note in run.notes),
        ],
        choices=choices(runs),
        splits=splits(runs),
        unit=unit,
        classes=runs[0].classes,
        paper=paper,
        drawings=drawings,
        trust=trust,
        files=files.name,
        runs=[described(run) for run in runs],
        sets={name: one for run in runs for name, one in run.record["sets"].items()},
        versions=runs[0].record["versions"],
    )
    with (
        staged_file(out, read, overwrite=overwrite) as partial,
        staged_folder(files, "report", read, overwrite=overwrite) as folder,
    ):
        table.to_csv(folder / "errors.csv", index=False)
        gains_table(found).to_csv(folder / "gains.csv", index=False)
        write_folds(table, folder)
        for drawing in [*drawings, *trust.get("drawings", [])]:
            drawing.numbers.to_csv(folder / f"{drawing.name}.csv", index=False)
            for theme, image in drawing.images.items():
                end = "" if theme == "light" else "_dark"
                (folder / f"{drawing.name}{end}.png").write_bytes(image)
        runs_read = {run.folder.name: str(run.folder) for run in runs}
        write_record(folder, "report", {"page": out.name, "runs": runs_read})
        partial.write_text(page, encoding="utf-8")
    return [out, files]


def _drawings(
    runs: list[Run], table: pd.DataFrame, found: list[Gain], unit: str, paper: Published | None
) -> list[Drawing]:
    most = figures.largest_training(runs)
    names = [run.folder.name for run in most]
    of_most = table[table["run"].isin(names)]
    largest = {(run.strategy, run.training.labels or -1) for run in most}
    of_largest = [gain for gain in found if (gain.strategy, gain.labels) in largest]
    tests = figures.tests_of(table)
    drawings = [
        figures.improvement(most, of_largest, paper, tests),
        figures.errors(most, of_most, unit),
        *(class_figures(most, tests) if runs[0].classes else _parities(most, unit)),
        *figures.distances(most, unit),
        *figures.learning_curves(most, unit),
        figures.few_shot(runs, table, unit),
    ]
    return [drawing for drawing in drawings if drawing is not None]


def _trust(trusted: list[Trust], tests: list[str], unit: str) -> dict[str, Any]:
    """Return what the page shows of calibrated evaluations; empty if there are none."""
    if not trusted:
        return {}
    return {
        "tables": trust_tables(trusted, tests),
        "telling": telling_rows(trusted),
        "coverage": ", ".join(f"{100 * one:g} %" for one in {t.coverage for t in trusted}),
        "drawings": trust_figures(trusted, tests, unit),
    }


def _parities(runs: list[Run], unit: str) -> list[Drawing]:
    """Return prediction against label, one run of each strategy, all on the same axes."""
    values = np.concatenate(
        [run.predictions[["label", "prediction"]].to_numpy().ravel() for run in runs]
    )
    values = values[np.isfinite(values)]
    margin = 0.03 * np.ptp(values)
    limits = (float(values.min() - margin), float(values.max() + margin))
    return [figures.parity(run, unit, limits) for run in pooled(runs)]


def _where(table: pd.DataFrame) -> str:
    """Return what the heading says of the test sets."""
    folds = table["set"].map(fold_of_set).nunique()
    if folds > 1:
        return f" in {folds} folds"
    return " in and out of distribution" if len(set(table["kind"])) > 1 else ""


def _in_words(unit: str | None) -> str:
    """Return a unit as the page and its figures have it in brackets."""
    return {None: "unit of the label", "1": "dimensionless"}.get(unit, unit or "")


def _unit(runs: list[Run]) -> str | None:
    for run in runs:
        for one in run.record["sets"].values():
            if run.property_name in one["unit"]:
                return str(one["unit"][run.property_name])
    return None


def _split_method(runs: list[Run]) -> str | None:
    """Return the method of ``dp-mft split`` that made the OOD test set."""
    sets = runs[0].record["sets"]
    methods = [one.get("split") for name, one in sets.items() if kind_of_set(name) == "OOD"]
    return methods[0] if methods else None


def _test_table(
    runs: list[Run], table: pd.DataFrame, found: list[Gain], test: str, paper: Published | None
) -> dict[str, Any]:
    """Return the table of one test set: a row for each strategy and training size."""
    part = table[table["test"] == test]
    names = [*BASELINES, *figures.strategies_of(runs)]
    rows = [
        _row(runs, part[(part["strategy"] == name) & (part["labels"] == labels)], found, paper)
        for name in names
        for labels in sorted(part.loc[part["strategy"] == name, "labels"].unique())
    ]
    folds = part["set"].nunique()
    sizes = part.drop_duplicates("set")["structures"]
    return {
        "name": test,
        "folds": folds if folds > 1 else 0,
        "structures": int(sizes.sum()),
        "rows": rows,
        "gains": any(row["gain"] for row in rows),
        "paper": paper is not None and any(row["paper"] for row in rows),
    }


def _row(
    runs: list[Run], own: pd.DataFrame, found: list[Gain], paper: Published | None
) -> dict[str, Any]:
    strategy, labels, test = (own[key].iloc[0] for key in ("strategy", "labels", "test"))
    fewest = int(own["structures"].min())
    cells = []
    for metric, _ in CLASSES if "accuracy" in own and own["accuracy"].notna().any() else NUMBERS:
        known = metric in own and own[metric].notna().any()
        cells.append(_cell(own, metric, fewest) if known else {"value": "", "spread": ""})
    gain = next(
        (g for g in found if (g.strategy, g.labels, g.test) == (strategy, labels, test)), None
    )
    kind = kind_of_set(test)
    pair = paper.errors.get(strategy) if paper is not None else None
    printed = pair[0 if kind == "ID" else 1] if pair and kind in ("ID", "OOD") else None
    return {
        "name": STRATEGIES.get(strategy) or BASELINES[strategy],
        "baseline": strategy in BASELINES,
        "labels": labels_in_words(runs, labels),
        "runs": "" if strategy in BASELINES else runs_in_words(own),
        "cells": cells,
        "gain": None if gain is None else _gain(gain),
        "paper": "" if printed is None else f"{printed:g}",
    }


def _cell(own: pd.DataFrame, metric: str, structures: int) -> dict[str, str]:
    """Return an error with its spread over several folds or seeds, or the interval of one run."""
    mean, std, over = mean_and_spread(own, metric)
    value = digits(mean, structures)
    if over:
        places = len(value.partition(".")[2])
        return {"value": value, "spread": f"± {std:.{places}f} ({over})"}
    low, high = own.get(f"{metric}_low"), own.get(f"{metric}_high")
    if low is None or high is None or not np.isfinite([low.iloc[0], high.iloc[0]]).all():
        return {"value": value, "spread": ""}
    interval = f"{digits(low.iloc[0], structures)} to {digits(high.iloc[0], structures)}"
    return {"value": value, "spread": interval}


def _gain(gain: Gain) -> dict[str, str]:
    interval = f"{gain.low:+.0f} to {gain.high:+.0f}" if np.isfinite(gain.low) else ""
    return {
        "value": f"{gain.mean:+.0f}",
        "interval": interval,
        "words": "" if gain.told_apart else "cannot be told apart",
    }
