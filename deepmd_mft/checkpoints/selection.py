"""The best checkpoint of a run, by its whole validation set.

deepmd-kit's own full validation refuses property and multi-task training, and the learning curve
shows single batches. One model is built; the weights of each checkpoint go into it; neighbour
lists are kept. Test sets are not looked at.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from deepmd_mft.bridge.neighbours import NeighbourLists
from deepmd_mft.checkpoints.averaging import average, greedy
from deepmd_mft.checkpoints.file import read_model_params
from deepmd_mft.errors import UserError
from deepmd_mft.evaluation.metrics import CLASSES, LARGER_IS_BETTER, REGRESSION, measure
from deepmd_mft.files.checksums import file_checksum
from deepmd_mft.inference.predictor import Predictor
from deepmd_mft.structures.structure_set import StructureSet

if TYPE_CHECKING:
    from pathlib import Path

    from deepmd_mft.checkpoints.run import Checkpoint, TrainingRun

log = logging.getLogger(__name__)

BEST = "model.best.pt"
AVERAGE = "model.average.pt"
TABLE = "selection.csv"
RECORD = "selection.json"


@dataclass(frozen=True)
class Selection:
    """What was selected.

    Attributes
    ----------
    table : pd.DataFrame
        One row a checkpoint: file, step, sha256, metrics on the validation set.
    metric : str
        What was compared.
    best : Path
        The checkpoint, or the average.
    averages : list of dict
        Each average tried: kind, members, score, whether kept.
    skipped : list of str
        Checkpoints that could not be read.
    """

    table: pd.DataFrame
    metric: str
    best: Path
    averages: list[dict[str, Any]]
    skipped: list[str]


class Validation:
    """Scores weights on the validation set of a run.

    Parameters
    ----------
    run : TrainingRun
    head : str, optional
        The property branch.
    checkpoint : Path
        Any checkpoint of the run that can be read; the model is built from it.
    """

    def __init__(self, run: TrainingRun, head: str | None, checkpoint: Path) -> None:
        branch = run.property_branch(head)
        systems = run.systems(branch, "validation_data")
        if not systems:
            raise UserError(
                f"{run.input_file}: {branch.where} has no validation_data; give it some, a "
                "checkpoint must not be chosen by training or test data"
            )
        self.predictor = Predictor.load(checkpoint, branch.name or None)
        self.output = self.predictor.outputs[0]
        self.classes = self.output.num_classes is not None
        self.structures = StructureSet("validation", systems)
        label = self.structures.labels(self.output.name, self.output.label_columns)
        if label is None or not np.isfinite(label).all(axis=1).any():
            raise UserError(
                f"the validation data of {branch.where} have no labels of '{self.output.name}' "
                f"({', '.join(map(str, systems))}); nothing to select by"
            )
        self.label: np.ndarray = label
        self.batches = self.predictor.batches(self.structures)
        self.neighbours = NeighbourLists()

    def measure(self, state: Path | dict[str, Any]) -> dict[str, float]:
        """Return the metrics of a checkpoint or of a whole state dictionary."""
        if isinstance(state, dict):
            prefix = f"model.{self.predictor.head or 'Default'}."
            self.predictor.load_state(
                {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            )
        else:
            self.predictor.load_weights(state)
        found = self.predictor.predict(self.batches, neighbours=self.neighbours)
        return measure(found[self.output.name], self.label, classes=self.classes)


def select(
    run: TrainingRun,
    *,
    head: str | None = None,
    metric: str | None = None,
    averages: list[tuple[str, int]] | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Selection:
    """Evaluate every kept checkpoint, write ``selection.csv`` and link ``model.best.pt``.

    Parameters
    ----------
    run : TrainingRun
    head : str, optional
        The property branch, if there are several.
    metric : str, optional
        ``rmse`` by default, for classes ``roc_auc`` of two, else ``accuracy``.
    averages : list of (str, int), optional
        ``("last", k)`` or ``("best", k)``: averages to try, uniform and greedy.
    overwrite : bool
        Forget an earlier selection on other validation data.
    progress : bool
        Show a bar.

    Raises
    ------
    UserError
        If there is nothing to select from or by.
    """
    checkpoints = run.checkpoints()
    skipped: list[str] = []
    validation = _first_readable(run, head, checkpoints)
    metric = metric or _default_metric(validation)
    names = CLASSES if validation.classes else REGRESSION
    if metric not in names:
        raise UserError(f"metric '{metric}' does not fit this head; there are {', '.join(names)}")
    record = {
        "made_by": "dp-mft select",
        "input_sha256": file_checksum(run.input_file),
        "property": validation.output.name,
        "validation": validation.structures.checksum(),
    }
    known = _read_earlier(run.folder, record, overwrite=overwrite)
    rows: list[dict[str, Any]] = []
    for checkpoint in tqdm(
        checkpoints, unit=" checkpoints", disable=not progress, desc="validation"
    ):
        row = _evaluate(checkpoint, validation, known, skipped)
        if row is None:
            continue
        rows.append(row)
        _write_table(run.folder, rows, record)
    table = pd.DataFrame(rows)
    sign = -1.0 if metric in LARGER_IS_BETTER else 1.0
    scores = (sign * table[metric]).fillna(np.inf)
    if not np.isfinite(scores).any():
        raise UserError(
            f"{metric} of every checkpoint in {run.folder} is NaN: the training has diverged, or "
            "the validation labels are constant"
        )
    best = run.folder / table["file"][int(scores.idxmin())]
    tried: list[dict[str, Any]] = []
    for kind, number in averages or []:
        ranked = table.assign(score=scores).sort_values("step" if kind == "last" else "score")
        ranked = ranked[np.isfinite(ranked["score"])]
        chosen = ranked.tail(number) if kind == "last" else ranked.head(number)
        tried += _average(run.folder, chosen, validation, metric, sign)
    kept = min(tried, key=lambda one: one["score"], default=None)
    if kept is not None and kept["score"] < scores.min():
        members = [run.folder / name for name in kept["members"]]
        _save(average(members), run.folder / AVERAGE)
        kept["kept"] = True
        best = run.folder / AVERAGE
    _link(best, run.folder / BEST)
    for one in tried:
        one[metric] = sign * one.pop("score")
    record |= {"metric": metric, "best": best.name, "averages": tried}
    _write_table(run.folder, rows, record)
    return Selection(table, metric, best, tried, skipped)


def _default_metric(validation: Validation) -> str:
    classes = validation.output.num_classes
    if classes is None:
        return "rmse"
    return "roc_auc" if classes == 2 else "accuracy"


def _first_readable(
    run: TrainingRun, head: str | None, checkpoints: list[Checkpoint]
) -> Validation:
    """Build the model from the first checkpoint that is complete."""
    for checkpoint in checkpoints:
        try:
            read_model_params(checkpoint.path)
        except UserError:
            continue
        return Validation(run, head, checkpoint.path)
    raise UserError(
        f"none of the {len(checkpoints)} checkpoints in {run.folder} can be read; is the first one "
        "still being written?"
    )


def _evaluate(
    checkpoint: Checkpoint,
    validation: Validation,
    known: dict[str, dict[str, Any]],
    skipped: list[str],
) -> dict[str, Any] | None:
    try:
        checksum = file_checksum(checkpoint.path)
        if checksum in known:
            return known[checksum]
        numbers = validation.measure(checkpoint.path)
    except (UserError, FileNotFoundError) as error:
        skipped.append(
            f"{checkpoint.path.name} left out ({error}). If the training goes on, it is being "
            "written or was just removed: run select again later"
        )
        return None
    return {"file": checkpoint.path.name, "step": checkpoint.step, "sha256": checksum, **numbers}


def _average(
    folder: Path, chosen: pd.DataFrame, validation: Validation, metric: str, sign: float
) -> list[dict[str, Any]]:
    """Try the uniform and the greedy average of the chosen checkpoints."""
    if len(chosen) < 2:
        return []

    def score(paths: list[Path]) -> float:
        value = sign * validation.measure(average(paths))[metric]
        return value if np.isfinite(value) else np.inf

    paths = [folder / name for name in chosen.sort_values("score")["file"]]
    found = [{"kind": "uniform", "members": [p.name for p in paths], "score": score(paths)}]
    members, value = greedy(paths, score, float(chosen["score"].min()))
    if len(members) > 1:
        found.append({"kind": "greedy", "members": [p.name for p in members], "score": value})
    return [{**one, "kept": False} for one in found]


def _read_earlier(
    folder: Path, record: dict[str, Any], *, overwrite: bool
) -> dict[str, dict[str, Any]]:
    table, path = folder / TABLE, folder / RECORD
    if overwrite or not table.is_file() or not path.is_file():
        return {}
    try:
        old = json.loads(path.read_text())
        rows = pd.read_csv(table).to_dict("records")
    except ValueError:
        raise UserError(f"{table} or {path} is damaged; start anew with --overwrite") from None
    keys = ("property", "validation")
    if any(old.get(key) != record[key] for key in keys):
        raise UserError(
            f"{table} was made with another property or other validation data; --overwrite "
            "evaluates every checkpoint again"
        )
    return {str(row["sha256"]): {str(k): v for k, v in row.items()} for row in rows}


def _write_table(folder: Path, rows: list[dict[str, Any]], record: dict[str, Any]) -> None:
    for name, text in (
        (TABLE, pd.DataFrame(rows).to_csv(index=False)),
        (RECORD, json.dumps(record, indent=1) + "\n"),
    ):
        partial = folder / f".{name}.partial"
        partial.write_text(text)
        partial.replace(folder / name)


def _save(state: dict[str, Any], path: Path) -> None:
    partial = path.with_name(f".{path.name}.partial")
    torch.save({"model": state}, partial)
    partial.replace(path)


def _link(target: Path, link: Path) -> None:
    if link.exists() and not link.is_symlink():
        raise UserError(f"{link} is a file of its own, not a link made here; rename it first")
    partial = link.with_name(f".{link.name}.partial")
    partial.unlink(missing_ok=True)
    partial.symlink_to(os.path.relpath(target, link.parent))
    partial.replace(link)


def curve(selection: Selection) -> str:
    """Return the validation curve as text, a bar a checkpoint."""
    table, metric = selection.table, selection.metric
    values = table[metric].to_numpy(dtype=float)
    finite = values[np.isfinite(values)]
    low, span = (finite.min(), np.ptp(finite)) if len(finite) else (0.0, 0.0)
    lines = [f"{'step':>10}  {metric}"]
    for step, value, name in zip(table["step"], values, table["file"], strict=True):
        length = 1 + round(39 * (value - low) / span) if span and np.isfinite(value) else 1
        mark = "  <- best" if name == selection.best.name else ""
        bar = "#" * length if np.isfinite(value) else "not a number"
        lines.append(f"{step:>10}  {value:<10.5g} {bar}{mark}")
    return "\n".join(lines)
