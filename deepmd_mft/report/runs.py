"""What a report needs to know of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from deepmd_mft.checkpoints.run import TrainingRun
from deepmd_mft.errors import UserError
from deepmd_mft.evaluation.metrics import regression
from deepmd_mft.evaluation.tables import evaluate, read_evaluation
from deepmd_mft.files.checksums import file_checksum
from deepmd_mft.files.staging import staged_folder
from deepmd_mft.inference.predictor import ModelFile, best_model
from deepmd_mft.inputs.branches import flat
from deepmd_mft.structures.structure_set import StructureSet, find_sets

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from deepmd_mft.inputs.branches import Branch

#: MFT, Table 1, in the order of the figures.
STRATEGIES = {
    "scratch": "from scratch",
    "ft": "fine-tuning (FT)",
    "lp": "linear probing (LP)",
    "mft": "multi-task fine-tuning (MFT)",
}


@dataclass
class Run:
    """A run and its predictions.

    Attributes
    ----------
    folder : Path
    strategy : str
        One of :data:`STRATEGIES`.
    property_name, head : str
        What it learns, in which branch (empty for a single-task model).
    train_systems : list of Path
        The systems that it trained on.
    train_labels : np.ndarray
        First label of every labelled training structure.
    predictions : pd.DataFrame
        Columns ``set``, ``label``, ``prediction``, ``natoms``, ``formula``.
    curve : pd.DataFrame
        ``lcurve.out``.
    share : float
        ``model_prob`` of the property branch.
    config, record : dict
        Its input and the record of its evaluation.
    """

    folder: Path
    strategy: str
    property_name: str
    head: str
    train_systems: list[Path]
    train_labels: np.ndarray
    predictions: pd.DataFrame
    curve: pd.DataFrame
    share: float
    config: dict[str, Any]
    record: dict[str, Any]

    def errors(self, name: str) -> dict[str, float]:
        """Return the errors on a set; NaN where it has no labels."""
        part = self.of_set(name)
        return regression(part[["prediction"]].to_numpy(), part[["label"]].to_numpy())

    def of_set(self, name: str) -> pd.DataFrame:
        """Return the labelled predictions of a set."""
        part = self.predictions[self.predictions["set"] == name]
        return part[np.isfinite(part["label"])]


def load_run(folder: Path, split: list[Path], sets: list[str] | None, *, progress: bool) -> Run:
    """Read a run; evaluate its model if that has not been done.

    Parameters
    ----------
    folder : Path
    split : list of Path
        Split folders, for a run without ``evaluation/``.
    sets : list of str, optional
        Which sets; those called ``id*``, ``ood*`` or ``test*`` by default.
    progress : bool
        Show a bar.

    Raises
    ------
    UserError
        If there is no model, or no evaluation of this model and no split folder.
    """
    run = TrainingRun(folder)
    branch = run.property_branch()
    if branch.fitting_net["type"] == "mft_classification":
        raise UserError(
            f"{folder} learns classes, the report compares errors of numbers; `dp-mft evaluate` "
            "gives accuracy, ROC-AUC and F1"
        )
    model = best_model(folder)
    place = folder / "evaluation"
    if not place.is_dir():
        if not split:
            raise UserError(
                f"{folder} has no evaluation/ yet: give --split DIR, or run "
                f"`dp-mft evaluate {folder} --split DIR -o {place}`"
            )
        found = list(find_sets(split, sets or _test_sets(split)))
        read = [model, *(path for one in found for path in one.folders)]
        with staged_folder(place, "evaluate", read) as staged:
            evaluate([ModelFile(folder.name, model)], found, progress=progress).write(staged)
    table, record = read_evaluation(place)
    if record["models"][0]["sha256"] != file_checksum(model):
        raise UserError(
            f"{place} belongs to another model than {model}; evaluate again: `dp-mft evaluate "
            f"{folder} --split DIR -o {place} --overwrite`"
        )
    name = next(iter(branch.labels))
    table = table[table["property"] == name]
    if "label" not in table or "prediction" not in table:
        raise UserError(f"{folder}: '{name}' has several columns; the report is for scalar labels")
    prob = run.config["training"].get("model_prob") or {}
    return Run(
        folder,
        _strategy(run, branch),
        name,
        branch.name,
        run.systems(branch, "training_data"),
        _train_labels(run, branch, name),
        table,
        run.learning_curve(),
        prob.get(branch.name, 1.0) / (sum(prob.values()) or 1.0) if prob else 1.0,
        run.config,
        record,
    )


def _test_sets(split: list[Path]) -> list[str] | None:
    names = [
        path.name
        for folder in split
        for path in sorted(folder.iterdir())
        if path.is_dir() and path.name.startswith(("id", "ood", "test"))
    ]
    return names or None


def _strategy(run: TrainingRun, branch: Branch) -> str:
    if len(run.branches) > 1:
        return "mft"
    if branch.model.get("descriptor", {}).get("trainable", True) is False:
        return "lp"
    return "ft" if branch.model.get("finetune_head") else "scratch"


def _train_labels(run: TrainingRun, branch: Branch, name: str) -> np.ndarray:
    systems = run.systems(branch, "training_data")
    values = StructureSet("train", systems).labels(name, branch.labels[name]) if systems else None
    if values is None:
        return np.array([])
    return values[np.isfinite(values).all(axis=1), 0]


def check_comparable(runs: list[Run]) -> None:
    """Raise if the runs do not belong on one page: another property, or other test sets."""
    names = {run.property_name: run.folder for run in runs}
    if len(names) > 1:
        listed = ", ".join(f"{name} ({folder})" for name, folder in names.items())
        raise UserError(f"the runs learn different properties: {listed}; make a report of each")
    for run in runs[1:]:
        for name in run.record["sets"].keys() & runs[0].record["sets"].keys():
            mine, theirs = (
                [folder["sha256"] for folder in one.record["sets"][name]["folders"]]
                for one in (run, runs[0])
            )
            if mine != theirs:
                raise UserError(
                    f"set {name} of {run.folder} holds other data than that of {runs[0].folder}; "
                    "evaluate both on the same folder"
                )
        if run.record["sets"].keys() != runs[0].record["sets"].keys():
            raise UserError(
                f"{run.folder} was evaluated on {', '.join(run.record['sets'])}, {runs[0].folder} "
                f"on {', '.join(runs[0].record['sets'])}; evaluate both on the same sets"
            )


#: Last parts of the keys in which the inputs of two seeds may differ.
_OF_A_SEED = {
    *("seed", "systems", "stat_file"),
    *("disp_file", "disp_freq", "numb_btch", "save_ckpt", "save_freq", "max_ckpt_keep"),
    *("checkpoint", "checkpoint_sha256"),  # of dp-mft input
}


def unlike_seeds(runs: list[Run]) -> list[str]:
    """Say which runs of one strategy and training size differ in more than the seed."""
    notes = []
    first: dict[tuple[str, int], Run] = {}
    for run in runs:
        other = first.setdefault((run.strategy, len(run.train_labels)), run)
        mine, theirs = flat(run.config), flat(other.config)
        differing = sorted(
            key
            for key in mine.keys() | theirs.keys()
            if mine.get(key) != theirs.get(key) and key.split("/")[-1] not in _OF_A_SEED
        )
        if differing:
            shown = ", ".join(differing[:5]) + (", ..." if len(differing) > 5 else "")
            notes.append(
                f"{run.folder.name} and {other.folder.name} are averaged as seeds "
                f"({run.strategy.upper()}, {len(run.train_labels)} labels), but their inputs "
                f"differ in {shown}; make a report of each if that matters"
            )
    return notes
