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
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from deepmd_mft.bridge.neighbours import NeighbourLists
from deepmd_mft.checkpoints.averaging import average, greedy
from deepmd_mft.checkpoints.file import read_state, write_state
from deepmd_mft.errors import UserError
from deepmd_mft.evaluation.labels import labels_of
from deepmd_mft.evaluation.metrics import LARGER_IS_BETTER, measure
from deepmd_mft.files.checksums import file_checksum
from deepmd_mft.files.staging import atomic_file
from deepmd_mft.inference.predictor import Predictor
from deepmd_mft.names import CLASSES, REGRESSION
from deepmd_mft.structures.pooling import Pooling
from deepmd_mft.structures.structure_set import StructureSet

if TYPE_CHECKING:
    from deepmd_mft.checkpoints.run import Checkpoint, TrainingRun
    from deepmd_mft.inference.predictor import Output

log = logging.getLogger(__name__)

BEST = "model.best.pt"
AVERAGE = "model.average.pt"
TABLE = "selection.csv"
RECORD = "selection.json"
#: Metrics in the unit of the label.
WITH_UNIT = ("rmse", "mae", "max_error")


@dataclass(frozen=True)
class Selection:
    """What was selected.

    Attributes
    ----------
    table : pd.DataFrame
        One row per checkpoint: file, step, sha256, metrics on the validation set.
    metric : str
        What was compared.
    about : str
        Of which properties the metric is, in words.
    best : Path
        The checkpoint, or the average.
    averages : list of dict
        Each average tried: kind, members, score, whether kept.
    skipped : list of str
        Checkpoints that could not be read.
    """

    table: pd.DataFrame
    metric: str
    about: str
    best: Path
    averages: list[dict[str, Any]]
    skipped: list[str]


class Validation:
    """Scores weights on validation data.

    Parameters
    ----------
    systems : list of Path
        The data.
    where : str
        Whose they are, for messages.
    predictor : Predictor
        Made from any checkpoint of the network that is to be scored.
    name : str, optional
        The property that counts, of a head that has several; all of them by default.
    """

    def __init__(
        self, systems: list[Path], where: str, predictor: Predictor, name: str | None = None
    ) -> None:
        self.predictor = predictor
        self.outputs = [o for o in self.predictor.outputs if name in (None, o.name)]
        if not self.outputs:
            known = ", ".join(output.name for output in self.predictor.outputs)
            raise UserError(f"{where} does not predict '{name}'; there are {known}")
        self.classes = self.outputs[0].num_classes is not None
        structures = StructureSet("validation", systems).with_type_map(self.predictor.type_map)
        self.pooling = Pooling(structures)
        self.structures = structures
        self.labels = {output.name: self._labels(output, where) for output in self.outputs}
        self.batches = self.predictor.batches(self.structures)
        self.neighbours = NeighbourLists()

    @classmethod
    def of_run(
        cls, run: TrainingRun, head: str | None, checkpoint: Path, name: str | None = None
    ) -> Validation:
        """Take the validation data of a run's property branch, and a checkpoint that can be read.

        Raises
        ------
        UserError
            If there are none.
        """
        branch = run.property_branch(head, name)
        systems = run.validation_systems(branch)
        return cls(systems, branch.where, Predictor.load(checkpoint, branch.name or None), name)

    def choose_metric(self, metric: str | None) -> str:
        """Return the metric to choose by: RMSE by default, of classes ROC-AUC or accuracy.

        Raises
        ------
        UserError
            If ``metric`` is given and does not fit the head.
        """
        classes = self.outputs[0].num_classes
        default = "rmse" if classes is None else "roc_auc" if classes == 2 else "accuracy"
        names = CLASSES if self.classes else REGRESSION
        if metric is not None and metric not in names:
            raise UserError(
                f"metric '{metric}' does not fit this head; there are {', '.join(names)}"
            )
        return metric or default

    @property
    def about(self) -> str:
        """Of which properties the metric is, in words."""
        names = list(self.labels)
        if len(names) == 1:
            return f"of {names[0]}"
        return (
            f"mean over {', '.join(names)}, each in units of the standard deviation of its "
            "validation labels"
        )

    def _labels(self, output: Output, where: str) -> np.ndarray:
        label = labels_of(self.pooling.structures, output)
        if label is None or not np.isfinite(label).all(axis=1).any():
            folders = ", ".join(map(str, self.structures.folders))
            raise UserError(
                f"the validation data of {where} have no labels of '{output.name}' ({folders}); "
                "nothing to select by"
            )
        return label

    def measure(
        self, state: Path | dict[str, Any], parts: dict[str, np.ndarray] | None = None
    ) -> dict[str, float]:
        """Return the metrics of a checkpoint or of a whole state dictionary.

        Of several properties, each has its metrics in its own unit (``rmse_homo``), and the
        errors without a name are their means in units of the labels' standard deviations.

        Parameters
        ----------
        state : Path or dict
        parts : dict of str to np.ndarray, optional
            Rows of the data that have errors of their own too (``rmse_tail``).
        """
        self.predictor.load_weights(state)
        every = self.predictor.predict(self.batches, neighbours=self.neighbours)
        found = {name: self.pooling.mean(every[name]) for name in self.labels}
        errors = self._errors(found, slice(None))
        for part, rows in (parts or {}).items():
            own = self._errors(found, rows)
            errors |= {f"{metric}_{part}": value for metric, value in own.items()}
        return errors

    def _errors(self, found: dict[str, np.ndarray], rows: slice | np.ndarray) -> dict[str, float]:
        each = {
            name: measure(found[name][rows], label[rows], classes=self.classes)
            for name, label in self.labels.items()
        }
        if len(each) == 1:
            return next(iter(each.values()))
        scales = {name: _spread(label) for name, label in self.labels.items()}
        numbers = {
            metric: float(
                np.mean(
                    [
                        own[metric] / (scales[name] if metric in WITH_UNIT else 1.0)
                        for name, own in each.items()
                    ]
                )
            )
            for metric in REGRESSION
        }
        named = {f"{metric}_{name}": own[metric] for name, own in each.items() for metric in own}
        return {**numbers, **named}


def signed(metric: str, value: float) -> float:
    """Return a score of which smaller is better; infinity for what is not a number."""
    score = -value if metric in LARGER_IS_BETTER else value
    return float(score) if np.isfinite(score) else np.inf


def _spread(label: np.ndarray) -> float:
    """Return the standard deviation of labels over structures, rms over their columns."""
    known = label[np.isfinite(label).all(axis=1)]
    spread = float(np.sqrt(known.var(axis=0).mean()))
    return spread or np.nan  # constant labels have no scale, and no mean over properties


def select(
    run: TrainingRun,
    *,
    head: str | None = None,
    name: str | None = None,
    metric: str | None = None,
    averages: list[tuple[str, int]] | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Selection:
    """Evaluate every kept checkpoint on the whole validation set and link the best.

    Parameters
    ----------
    run : TrainingRun
    head : str, optional
        Property branch; the main one by default.
    name : str, optional
        Property that counts, of a head that has several; their mean by default.
    metric : str, optional
        RMSE by default; for classes ROC-AUC, or accuracy if there are more than two.
    averages : list of (kind, number), optional
        ``("last", 5)`` or ``("best", 3)``: also try uniform and greedy averages of these.
    overwrite : bool
        Forget an earlier selection instead of going on with it.
    progress : bool
        Show a bar.

    Raises
    ------
    UserError
        If there is nothing to select from or by.
    """
    checkpoints = run.checkpoints()
    skipped: list[str] = []
    validation = _first_readable(run, head, checkpoints, name)
    metric = validation.choose_metric(metric)
    properties = list(validation.labels)
    record = {
        "made_by": "dp-mft select",
        "input_sha256": file_checksum(run.input_file),
        "property": properties[0] if len(properties) == 1 else properties,
        "branch": validation.predictor.branch,
        "validation": validation.structures.checksum(),
    }
    check_own(run.folder, overwrite=overwrite)
    known = _read_earlier(run.folder, record, overwrite=overwrite)
    rows: list[dict[str, Any]] = []
    for checkpoint in tqdm(
        checkpoints, unit=" checkpoints", disable=not progress, desc="validation"
    ):
        row = _evaluate(checkpoint, run.folder, validation, known, skipped)
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
    scored = table.assign(score=scores)
    tried = _try_averages(run.folder, scored, averages or [], validation, metric)
    kept = min(tried, key=lambda one: one["score"], default=None)
    if kept is not None and kept["score"] < scores.min():
        members = [run.folder / member for member in kept["members"]]
        with atomic_file(run.folder / AVERAGE) as partial:
            write_state(partial, average(members), _made_of(kept, run.folder))
        kept["kept"] = True
        best = run.folder / AVERAGE
    link_best(best, run.folder / BEST)
    for one in tried:
        one[metric] = sign * one.pop("score")
    record |= {
        "metric": metric,
        "about": validation.about,
        "best": os.path.relpath(best, run.folder),
        "averages": tried,
    }
    _write_table(run.folder, rows, record)
    return Selection(table, metric, validation.about, best, tried, skipped)


def _first_readable(
    run: TrainingRun, head: str | None, checkpoints: list[Checkpoint], name: str | None
) -> Validation:
    """Build the model from the first checkpoint that is complete."""
    for checkpoint in checkpoints:
        try:
            read_state(checkpoint.path)
        except UserError:
            continue
        return Validation.of_run(run, head, checkpoint.path, name)
    raise UserError(
        f"none of the {len(checkpoints)} checkpoints in {run.folder} can be read; is the first one "
        "still being written?"
    )


def _evaluate(
    checkpoint: Checkpoint,
    folder: Path,
    validation: Validation,
    known: dict[str, dict[str, Any]],
    skipped: list[str],
) -> dict[str, Any] | None:
    try:
        checksum = file_checksum(checkpoint.path)
        file = os.path.relpath(checkpoint.path, folder)
        if checksum in known:
            return {**known[checksum], "file": file, "step": checkpoint.step}
        numbers = validation.measure(checkpoint.path)
    except (UserError, FileNotFoundError) as error:
        skipped.append(
            f"{checkpoint.path.name} left out ({error}). If the training goes on, it is being "
            "written or was just removed: run select again later"
        )
        return None
    return {"file": file, "step": checkpoint.step, "sha256": checksum, **numbers}


def _try_averages(
    folder: Path,
    scored: pd.DataFrame,
    averages: list[tuple[str, int]],
    validation: Validation,
    metric: str,
) -> list[dict[str, Any]]:
    """Try the uniform and the greedy average of the last or the best checkpoints."""

    def score(paths: list[Path]) -> float:
        return signed(metric, validation.measure(average(paths))[metric])

    found: list[dict[str, Any]] = []
    for kind, number in averages:
        ranked = scored.sort_values("step" if kind == "last" else "score")
        ranked = ranked[np.isfinite(ranked["score"])]
        chosen = ranked.tail(number) if kind == "last" else ranked.head(number)
        if len(chosen) < 2:
            continue
        files = list(chosen.sort_values("score")["file"])
        paths = [folder / file for file in files]
        found.append({"kind": "uniform", "members": files, "score": score(paths)})
        members, value = greedy(paths, score, float(chosen["score"].min()))
        if len(members) > 1:
            own = [os.path.relpath(path, folder) for path in members]
            found.append({"kind": "greedy", "members": own, "score": value})
    return [{**one, "kept": False} for one in found]


def check_own(folder: Path, *, overwrite: bool) -> None:
    """Raise if something of the names that a selection writes is somebody else's."""
    link = folder / BEST
    if link.exists() and not link.is_symlink():
        raise UserError(f"{link} is a file of its own, not a link made here; rename it first")
    if overwrite or (folder / RECORD).exists():
        return
    for path in (folder / TABLE, folder / AVERAGE, link):
        if path.exists() or path.is_symlink():
            raise UserError(
                f"{path} was not written by dp-mft select (there is no {RECORD}); rename it, or "
                "give --overwrite to replace it"
            )


def _read_earlier(
    folder: Path, record: dict[str, Any], *, overwrite: bool
) -> dict[str, dict[str, Any]]:
    table, path = folder / TABLE, folder / RECORD
    if overwrite or not table.is_file() or not path.is_file():
        return {}
    try:
        old = json.loads(path.read_text())
        rows = pd.read_csv(table, dtype={"file": str, "sha256": str}).to_dict("records")
        same = (
            old.get("property") == record["property"]
            and old.get("branch", record["branch"]) == record["branch"]  # not said at first
            and _contents(old) == _contents(record)
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{table} or {path} is damaged; start anew with --overwrite") from None
    if not same:
        raise UserError(
            f"{table} was made with another branch or property, or other validation data; "
            "--overwrite evaluates every checkpoint again"
        )
    return {str(row["sha256"]): {str(k): v for k, v in row.items()} for row in rows}


def _contents(record: dict[str, Any]) -> list[str]:
    """Return what the validation data hold; where they lie does not matter, a run may be moved."""
    return [one["sha256"] for one in record["validation"]]


def _write_table(folder: Path, rows: list[dict[str, Any]], record: dict[str, Any]) -> None:
    for name, text in (
        (RECORD, json.dumps(record, indent=1) + "\n"),  # first: it says whose the others are
        (TABLE, pd.DataFrame(rows).to_csv(index=False)),
    ):
        with atomic_file(folder / name) as partial:
            partial.write_text(text)


def _made_of(kept: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Say of which checkpoints an average is, for the file that holds it."""
    members = [{"path": one, "sha256": file_checksum(folder / one)} for one in kept["members"]]
    return {"made_by": "dp-mft select", "kind": kept["kind"], "inputs": members}


def link_best(target: Path, link: Path) -> None:
    """Let a link point at a checkpoint."""
    with atomic_file(link) as partial:
        partial.symlink_to(os.path.relpath(target, link.parent))


def curve(selection: Selection) -> str:
    """Return the validation curve as text, one bar per checkpoint."""
    table, metric = selection.table, selection.metric
    values = table[metric].to_numpy(dtype=float)
    finite = values[np.isfinite(values)]
    low, span = (finite.min(), np.ptp(finite)) if len(finite) else (0.0, 0.0)
    lines = [f"{'step':>10}  {metric} ({selection.about})"]
    for step, value, name in zip(table["step"], values, table["file"], strict=True):
        length = 1 + round(39 * (value - low) / span) if span and np.isfinite(value) else 1
        mark = "  <- best" if Path(name).name == selection.best.name else ""
        bar = "#" * length if np.isfinite(value) else "not a number"
        lines.append(f"{step:>10}  {value:<10.5g} {bar}{mark}")
    return "\n".join(lines)
