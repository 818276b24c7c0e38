"""What a report needs to know of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from deepmd_mft.checkpoints.branch import head_type, intensive_properties
from deepmd_mft.checkpoints.model_file import ModelFile
from deepmd_mft.checkpoints.run import TrainingRun, best_model
from deepmd_mft.checkpoints.selection import BEST, TABLE
from deepmd_mft.checkpoints.start import read_starts, summary_of_labels
from deepmd_mft.errors import UserError
from deepmd_mft.evaluation.folds import find_folds, match_folds, sets_of_fold, test_sets
from deepmd_mft.evaluation.labels import one_unit
from deepmd_mft.evaluation.metrics import class_probabilities
from deepmd_mft.evaluation.tables import evaluate, read_evaluation
from deepmd_mft.files.checksums import file_checksum
from deepmd_mft.files.staging import staged_folder
from deepmd_mft.inputs.branches import flat
from deepmd_mft.report.strategy import strategy_of
from deepmd_mft.structures.pooling import Pooling
from deepmd_mft.structures.structure_set import StructureSet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deepmd_mft.inputs.branches import Branch


@dataclass(frozen=True)
class Training:
    """What a run was trained on.

    Attributes
    ----------
    labels : int or None
        Number of labelled training structures; None if it is not known any more. Of folds that
        differ a little, one number for all.
    mean, std : float
        Of their first label; NaN if not known.
    systems : list of Path
        The systems, empty if they are not where they were.
    counted : int or None
        The run's own number, where ``labels`` is one for several folds.
    unit : str or None
        Of the labels, as far as the data say it.
    """

    labels: int | None
    mean: float
    std: float
    systems: list[Path]
    counted: int | None = None
    unit: str | None = None


@dataclass
class Run:
    """A run and its predictions.

    Attributes
    ----------
    folder : Path
    strategy : str
        One of :data:`~deepmd_mft.report.strategy.STRATEGIES`.
    source : str
        What says the strategy: a file of the run, or ``command line``.
    property_name, branch : str
        What it learns, in which branch (empty for a single-task model).
    intensive : bool
        Whether the property does not grow with the number of atoms.
    type_map : tuple of str
        Names of the types of systems without ``type_map.raw``.
    classes : bool
        Whether it learns classes.
    training : Training
    predictions : pd.DataFrame
        Columns ``set``, ``label``, ``prediction`` (or ``prediction_0`` ...), ``natoms``,
        ``formula``.
    curve : pd.DataFrame
        ``lcurve.out``.
    share : float
        Of the steps, by ``model_prob``: that of the property branch; NaN if that is left out.
    config : dict
        What was trained.
    model, record : dict
        Of the evaluation: the model, and the sets and versions.
    notes : list of str
        What the reader has to be told.
    """

    folder: Path
    strategy: str
    source: str
    property_name: str
    branch: str
    intensive: bool
    type_map: tuple[str, ...]
    classes: bool
    training: Training
    predictions: pd.DataFrame
    curve: pd.DataFrame
    share: float
    config: dict[str, Any]
    model: dict[str, Any]
    record: dict[str, Any]
    notes: list[str]

    @property
    def sets(self) -> list[str]:
        """Names of its test sets, of folds FOLD/SET."""
        return list(self.record["sets"])

    def of_set(self, name: str) -> pd.DataFrame:
        """Return the labelled predictions of a set."""
        part = self.predictions[self.predictions["set"] == name]
        return part[np.isfinite(part["label"])]

    def values(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return predictions (nframes x columns) and labels (nframes x 1) of a set."""
        part = self.of_set(name)
        columns = [one for one in part if one.startswith("prediction")]
        return part[columns].to_numpy(dtype=float), part[["label"]].to_numpy(dtype=float)

    def losses(self) -> np.ndarray:
        """Return for every row of the predictions its squared error; of classes 1 if it is wrong.

        NaN where there is no label, or the prediction is not a number.
        """
        label = self.predictions["label"].to_numpy(dtype=float)
        columns = [one for one in self.predictions if one.startswith("prediction")]
        prediction = self.predictions[columns].to_numpy(dtype=float)
        if self.classes:
            loss = (class_probabilities(prediction).argmax(axis=1) != label).astype(float)
        else:
            loss = np.mean((prediction - label[:, None]) ** 2, axis=1)
        known = np.isfinite(label) & np.isfinite(prediction).all(axis=1)
        return np.where(known, loss, np.nan)


@dataclass(frozen=True)
class Wanted:
    """A run as given on the command line."""

    folder: Path
    strategy: str | None = None


def load_runs(
    wanted: list[Wanted],
    split: list[Path],
    sets: list[str] | None,
    *,
    name: str | None = None,
    progress: bool = True,
) -> list[Run]:
    """Read runs; evaluate the models for which that has not been done.

    Parameters
    ----------
    wanted : list of Wanted
    split : list of Path
        Split folders, for runs without ``evaluation/``; each fold for the runs trained on it. An
        evaluation that there is must be of these data.
    sets : list of str, optional
        Which sets; those called ``id*``, ``ood*`` or ``test*`` by default.
    name : str, optional
        The property, of heads that have several.
    progress : bool
        Show a bar.

    Raises
    ------
    UserError
        If a run has no model, or no evaluation of this model and there is no split folder, or one
        of other data.
    """
    structures: dict[Path, list[StructureSet]] = {}
    folds = find_folds(split)
    if folds:
        own = match_folds([one.folder for one in wanted], folds)
        known = {name: sets_of_fold(name, folds[name], sets) for name in dict.fromkeys(own)}
        structures = {one.folder: known[fold] for one, fold in zip(wanted, own, strict=True)}
    elif split:
        structures = dict.fromkeys([one.folder for one in wanted], test_sets(split, sets))
    return [_load(one, structures.get(one.folder), sets, name, progress) for one in wanted]


def _load(
    wanted: Wanted,
    structures: list[StructureSet] | None,
    sets: list[str] | None,
    name: str | None,
    progress: bool,
) -> Run:
    folder = wanted.folder
    run = TrainingRun(folder)
    branch = run.property_branch(name=name)
    name = _property(branch, name, folder)
    strategy, source = (
        (wanted.strategy, "command line") if wanted.strategy else strategy_of(run, branch)
    )
    model = best_model(folder)
    place = folder / "evaluation"
    if not place.is_dir():
        if structures is None:
            raise UserError(
                f"{folder} has no evaluation/ yet: give --split DIR, or run "
                f"`dp-mft evaluate {folder} --split DIR -o {place}`"
            )
        file = ModelFile(folder.name, model, branch.name or None)
        read = [model, *(path for one in structures for path in one.folders)]
        with staged_folder(place, "evaluate", read) as staged:
            evaluate([file], [structures], progress=progress).write(staged)
    elif structures is not None:
        _check_data(place, model, structures)
    table, chosen, record = _of_model(place, model, name, sets)
    training, notes = _training(run, branch, name)
    notes += [*_note_of_groups(record), *_notes_of_nan(table, folder)]
    notes += note_of_later_checkpoints(run) if model.name == BEST else []
    if np.isnan(share_of_steps(run, branch)):
        notes.append(
            f"the input of {folder.name} has no model_prob: how many steps its property branch had "
            "is not known, its learning curve is left out"
        )
    return Run(
        folder,
        strategy,
        source,
        name,
        branch.name,
        intensive_properties(branch.model)[name],
        tuple(branch.model.get("type_map") or ()),
        head_type(branch.model) == "mft_classification",
        training,
        table,
        run.learning_curve(),
        share_of_steps(run, branch),
        run.config,
        chosen,
        record,
        notes,
    )


def _check_data(place: Path, model: Path, structures: list[StructureSet]) -> None:
    """Refuse an evaluation that is of other data than those that were named."""
    held = [_contents(one["folders"]) for one in read_evaluation(place)[1]["sets"].values()]
    for one in structures:
        if _contents(one.checksum()) not in held:
            raise UserError(
                f"{place} was not made with {one.path}, which --split names: {_again(model, place)}"
            )


def _contents(folders: list[dict[str, str]]) -> list[str]:
    return [folder["sha256"] for folder in folders]


def _again(model: Path, place: Path) -> str:
    return f"evaluate again: `dp-mft evaluate {model} --split DIR -o {place} --overwrite`"


def _property(branch: Branch, name: str | None, folder: Path) -> str:
    names = list(branch.labels)
    if name is None and len(names) > 1:
        raise UserError(f"{folder} learns {', '.join(names)}; choose one with --property")
    if name is not None and name not in names:
        raise UserError(f"{folder} does not learn '{name}'; it learns {', '.join(names)}")
    return name or names[0]


def _of_model(
    place: Path, model: Path, name: str, sets: list[str] | None
) -> tuple[pd.DataFrame, dict[str, Any], dict[str, Any]]:
    """Return the predictions of one model of an evaluation folder, its record, and the whole."""
    table, record = read_evaluation(place)
    again = _again(model, place)
    checksum = file_checksum(model)
    numbers = [i for i, one in enumerate(record["models"]) if one["sha256"] == checksum]
    if not numbers:
        raise UserError(f"{place} belongs to another model than {model}; {again}")
    keys = list(dict.fromkeys(zip(table["model"], table["file"], strict=True)))
    if len(keys) != len(record["models"]):
        raise UserError(f"{place} holds several branches of one file under one name; {again}")
    owner, file = keys[numbers[0]]
    table = table[(table["model"] == owner) & (table["file"] == file)]
    table = _own_columns(table[table["property"] == name])
    if "label" not in table:
        if any(one.startswith("label_") for one in table):
            raise UserError(f"{place}: '{name}' has several columns; the report is for scalars")
        raise UserError(f"{place} holds no labels of '{name}': nothing to compare; {again}")
    held = {key: one for key, one in record["sets"].items() if key in set(table["set"])}
    if sets:
        held = {key: one for key, one in held.items() if key.rpartition("/")[2] in sets}
        absent = set(sets) - {key.rpartition("/")[2] for key in held}
        if absent:
            raise UserError(f"{place} has no set {', '.join(sorted(absent))}; {again}")
        table = table[table["set"].isin(held)]
    for key, one in held.items():
        rows = int((table["set"] == key).sum())
        expected = one.get("groups", one["frames"])
        if rows != expected:
            raise UserError(
                f"{place}: {rows} predictions for the {expected} structures of {key}; {again}"
            )
    return table, record["models"][numbers[0]], {**record, "sets": held}


def _own_columns(table: pd.DataFrame) -> pd.DataFrame:
    """Leave out the columns of other properties; of predictions that are all NaN they stay."""
    empty = [column for column in table if table[column].isna().all()]
    predictions = [column for column in table if column.startswith("prediction")]
    kept = predictions if set(predictions) <= set(empty) else []
    return table.drop(columns=[column for column in empty if column not in kept])


def _notes_of_nan(table: pd.DataFrame, folder: Path) -> list[str]:
    """Say for which sets a model predicts something that is no number."""
    predictions = table[[column for column in table if column.startswith("prediction")]]
    bad = (~np.isfinite(predictions)).any(axis=1).groupby(table["set"], sort=False)
    return [
        f"{folder.name} predicts no number for {wrong} of {rows} structures of {name} (its "
        "training has diverged, or atoms are on top of each other): its errors there, and means "
        "over runs with it, are NaN"
        for (name, wrong), rows in zip(bad.sum().items(), bad.size(), strict=True)
        if wrong
    ]


def _training(run: TrainingRun, branch: Branch, name: str) -> tuple[Training, list[str]]:
    """Return what a run was trained on: from its data, else from the record of its start."""
    try:
        systems = run.systems(branch, "training_data")
        train = Pooling(StructureSet("train", systems)).structures if systems else None
        values = None if train is None else train.labels(name, 1)
        unit = None if train is None else train.units.get(name)
    except (UserError, FileNotFoundError):
        systems, values, unit = [], None, None
    if values is not None and np.isfinite(values).any():
        found = summary_of_labels(values[np.isfinite(values).all(axis=1), 0])
        return Training(int(found["labels"]), found["mean"], found["std"], systems, None, unit), []
    starts = [one.get("training_labels", {}) for one in read_starts(run.folder)]
    recorded = [start.get(branch.name, {}) for start in starts]
    known = next((one[name] for one in reversed(recorded) if name in one), None)
    note = f"the training data of {run.folder.name} are not where they were"
    if known is None:
        note += "; number, mean and spread of its labels, baselines and distances are left out"
        return Training(None, np.nan, np.nan, []), [note]
    note += (
        "; number, mean and spread of its labels are those recorded at its start, the composition "
        "baseline and the structural distance are left out"
    )
    return Training(int(known["labels"]), known["mean"], known["std"], []), [note]


def note_of_later_checkpoints(run: TrainingRun) -> list[str]:
    """Say that the training went on after its checkpoint was chosen."""
    try:
        chosen = int(pd.read_csv(run.folder / TABLE)["step"].max())
        last = run.checkpoints()[-1].step
    except (OSError, ValueError, KeyError, UserError):
        return []  # chosen by hand, or no other checkpoint is kept
    if last <= chosen:
        return []
    name = run.folder.name
    note = f"the checkpoint of {name} was chosen among those up to step {chosen}, but there is one "
    return [f"{note}of step {last}: run `dp-mft select {run.folder}` again"]


def share_of_steps(run: TrainingRun, branch: Branch) -> float:
    """Return which share of the steps a branch had; NaN if the input leaves ``model_prob`` out."""
    shares = run.config["training"].get("model_prob") or {}
    if len(run.branches) == 1:
        return 1.0
    found = {one.name: float(shares.get(one.name, np.nan)) for one in run.branches}
    return found[branch.name] / sum(found.values())


def _note_of_groups(record: dict[str, Any]) -> list[str]:
    """Say that labels belong to groups of structures, and how many there are of each."""
    numbers = [
        f"{name} has {one['groups']} groups of {one['frames']} structures"
        for name, one in record["sets"].items()
        if "groups" in one
    ]
    if not numbers:
        return []
    text = (
        f"one label belongs to a group of structures, as conformers ({'; '.join(numbers)}), and "
        "the prediction for it is the mean over the group: what this page calls a structure is a "
        "group, counted once in every number and error"
    )
    return [text]


def _units(runs: list[Run]) -> Iterator[tuple[str | None, str]]:
    """Yield what is said of the unit of the labels, and of which data."""
    for run in runs:
        yield run.training.unit, f"the training data of {run.folder.name}"
        for name, one in run.record["sets"].items():
            yield one["unit"].get(run.property_name), name


def check_comparable(runs: list[Run]) -> None:
    """Raise if the runs do not belong on one page: another property, unit, or other test sets."""
    names = {run.property_name: run.folder for run in runs}
    if len(names) > 1:
        listed = ", ".join(f"{name} ({folder})" for name, folder in names.items())
        raise UserError(f"the runs learn different properties: {listed}; make a report of each")
    one_unit(runs[0].property_name, _units(runs))
    kinds = {run.classes: run.folder for run in runs}
    if len(kinds) > 1:
        raise UserError(f"{kinds[True]} learns classes, {kinds[False]} numbers; report each")
    first: dict[str, tuple[Run, list[str]]] = {}
    for run in runs:
        for name, one in run.record["sets"].items():
            mine = _contents(one["folders"])
            other, theirs = first.setdefault(name, (run, mine))
            if mine != theirs:
                raise UserError(
                    f"set {name} of {run.folder} holds other data than that of {other.folder}; "
                    "evaluate both on the same folder"
                )
    kinds_of_sets = [sorted({name.rpartition("/")[2] for name in run.sets}) for run in runs]
    for run, own in zip(runs, kinds_of_sets, strict=True):
        if own != kinds_of_sets[0]:
            raise UserError(
                f"{run.folder} was evaluated on {', '.join(own)}, {runs[0].folder} on "
                f"{', '.join(kinds_of_sets[0])}; evaluate both on the same sets"
            )


#: Last parts of the keys in which the inputs of two seeds may differ.
_OF_A_SEED = {
    *("seed", "systems", "stat_file"),
    *("disp_file", "disp_freq", "numb_btch", "save_ckpt", "save_freq", "max_ckpt_keep"),
}


def unlike_seeds(runs: list[Run]) -> list[str]:
    """Say which runs of one strategy and training size differ in more than the seed."""
    notes = []
    first: dict[tuple[str, int | None], Run] = {}
    for run in runs:
        other = first.setdefault((run.strategy, run.training.labels), run)
        mine, theirs = flat(run.config), flat(other.config)
        differing = sorted(
            key
            for key in mine.keys() | theirs.keys()
            if mine.get(key) != theirs.get(key) and key.split("/")[-1] not in _OF_A_SEED
        )
        if differing:
            shown = ", ".join(differing[:5]) + (", ..." if len(differing) > 5 else "")
            notes.append(
                f"{run.folder.name} and {other.folder.name} are averaged as one recipe "
                f"({run.strategy.upper()}, {run.training.labels} labels), but their inputs "
                f"differ in {shown}; make a report of each if that matters"
            )
    return notes
