"""Put figures and tables on one page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
import pandas as pd

from deepmd_mft.errors import UserError
from deepmd_mft.evaluation.metrics import intervals
from deepmd_mft.files.records import write_record
from deepmd_mft.files.staging import check_file, check_folder, staged_file, staged_folder
from deepmd_mft.plots import report as figures
from deepmd_mft.report.paper import Published, published
from deepmd_mft.report.runs import STRATEGIES, Run, check_comparable, unlike_seeds

if TYPE_CHECKING:
    from deepmd_mft.plots.report import Drawing


def error_table(runs: list[Run]) -> pd.DataFrame:
    """Return errors, intervals and improvement over scratch, a row for each run and set."""
    rows: list[dict[str, Any]] = []
    for run in runs:
        for name in run.record["sets"]:
            part = run.of_set(name)
            if part.empty:
                continue
            values = (part[["prediction"]].to_numpy(), part[["label"]].to_numpy())
            rows.append(
                {
                    "run": run.folder.name,
                    "strategy": run.strategy,
                    "labels": len(run.train_labels),
                    "set": name,
                    "kind": figures.kind_of_set(name),
                    "structures": len(part),
                    **run.errors(name),
                    **intervals(*values, classes=False),
                }
            )
    if not rows:
        raise UserError("no run has predictions with labels; there is nothing to compare")
    table = pd.DataFrame(rows)
    scratch = (
        table[table["strategy"] == "scratch"].groupby(["labels", "set"])["rmse"].mean().to_dict()
    )
    base = [scratch.get((n, s), np.nan) for n, s in zip(table["labels"], table["set"], strict=True)]
    table["improvement_percent"] = 100 * (1 - table["rmse"] / np.array(base))
    return table


def write_report(
    runs: list[Run], out: Path, *, unit: str | None, title: str | None, overwrite: bool
) -> list[Path]:
    """Write the page, and beside it a folder with every figure as PNG and its numbers as CSV.

    Parameters
    ----------
    runs : list of Run
    out : Path
        The HTML file.
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
    read = [path for run in runs for path in _read(run)]
    check_file(out, read, overwrite=overwrite)
    check_folder(files, "report", read, overwrite=overwrite)
    check_comparable(runs)
    table = error_table(runs)
    known_unit = unit or _unit(runs)
    unit = known_unit or "unit of the label"
    paper = published(runs[0].property_name, known_unit, _split_method(runs))
    drawings = _drawings(runs, table, unit, paper)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("page.html").render(
        title=title or f"{runs[0].property_name}: {len(runs)} runs in and out of distribution",
        rows=_rows(runs, table, paper),
        notes=unlike_seeds(runs),
        unit=unit,
        paper=paper,
        drawings=drawings,
        files=files.name,
        runs=[_provenance(run) for run in runs],
        sets=runs[0].record["sets"],
        versions=runs[0].record["versions"],
    )
    with (
        staged_file(out, read, overwrite=overwrite) as partial,
        staged_folder(files, "report", read, overwrite=overwrite) as folder,
    ):
        table.to_csv(folder / "errors.csv", index=False)
        for drawing in drawings:
            drawing.numbers.to_csv(folder / f"{drawing.name}.csv", index=False)
            for theme, image in drawing.images.items():
                end = "" if theme == "light" else "_dark"
                (folder / f"{drawing.name}{end}.png").write_bytes(image)
        runs_read = {run.folder.name: str(run.folder) for run in runs}
        write_record(folder, "report", {"page": out.name, "runs": runs_read})
        partial.write_text(page, encoding="utf-8")
    return [out, files]


def _read(run: Run) -> list[Path]:
    """Return what the page is made from, which it must not replace."""
    names = ("evaluation", "input.json", "out.json", "lcurve.out")
    model = Path(run.record["models"][0]["path"])
    return [*(run.folder / name for name in names), model, *run.train_systems]


def _drawings(
    runs: list[Run], table: pd.DataFrame, unit: str, paper: Published | None
) -> list[Drawing]:
    most = figures.largest_training(runs)
    of_most = table[table["run"].isin([run.folder.name for run in most])]
    values = np.concatenate(
        [run.predictions[["label", "prediction"]].to_numpy().ravel() for run in most]
    )
    values = values[np.isfinite(values)]
    margin = 0.03 * np.ptp(values)
    limits = (float(values.min() - margin), float(values.max() + margin))
    found = [
        figures.improvement(most, of_most, paper),
        figures.errors(most, of_most, unit),
        *[figures.parity(run, unit, limits) for run in figures.first_of_each(most)],
        *figures.distances(most, unit),
        *figures.learning_curves(most, unit),
        figures.few_shot(runs, table, unit),
    ]
    return [drawing for drawing in found if drawing is not None]


def _unit(runs: list[Run]) -> str | None:
    for one in runs[0].record["sets"].values():
        if runs[0].property_name in one["unit"]:
            return str(one["unit"][runs[0].property_name])
    return None


def _split_method(runs: list[Run]) -> str | None:
    """Return the method of ``dp-mft split`` that made the OOD test set."""
    sets = runs[0].record["sets"]
    methods = [one.get("split") for name, one in sets.items() if name.startswith("ood")]
    return methods[0] if methods else None


def _rows(runs: list[Run], table: pd.DataFrame, paper: Published | None) -> list[dict[str, Any]]:
    """Return the page's table: a row for each strategy and training size, means over seeds."""
    rows = []
    for strategy in figures.strategies_of(runs):
        own = table[table["strategy"] == strategy]
        for labels, part in own.groupby("labels", sort=True):
            row: dict[str, Any] = {
                "strategy": STRATEGIES[strategy],
                "labels": labels,
                "runs": part["run"].nunique(),
                "cells": {},
                "paper": ["" if one is None else f"{one:g}" for one in paper.errors[strategy]]
                if paper is not None and strategy in paper.errors
                else ["", ""],
            }
            for kind in ("ID", "OOD"):
                cell = part[part["kind"] == kind]
                if cell.empty:
                    continue
                gain = cell["improvement_percent"].mean()
                row["cells"][kind] = {
                    "rmse": f"{cell['rmse'].mean():.4f}",
                    "spread": f"± {cell['rmse'].std():.4f} (seeds)"
                    if len(cell) > 1
                    else f"{cell['rmse_low'].iloc[0]:.4f} to {cell['rmse_high'].iloc[0]:.4f}",
                    "mae": f"{cell['mae'].mean():.4f}",
                    "r2": f"{cell['r2'].mean():.3f}",
                    "gain": f"{gain:+.1f} %" if np.isfinite(gain) and strategy != "scratch" else "",
                }
            rows.append(row)
    return rows


def _provenance(run: Run) -> dict[str, Any]:
    model = run.record["models"][0]
    return {
        "name": run.folder.name,
        "strategy": STRATEGIES[run.strategy],
        "model": Path(model["path"]).name,
        "sha256": model["sha256"],
        "labels": len(run.train_labels),
        "steps": run.config["training"].get("numb_steps"),
        "date": run.record["date"],
        "config": json.dumps(run.config, indent=1),
    }
