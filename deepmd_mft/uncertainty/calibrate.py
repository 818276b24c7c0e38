"""Calibrate models on validation data, whatever they predict, and read what was kept."""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

from deepmd_mft.checkpoints.run import TrainingRun, folder_of_run
from deepmd_mft.errors import UserError
from deepmd_mft.structures.duplicates import duplicate_groups
from deepmd_mft.structures.places import find_test_set
from deepmd_mft.structures.structure_set import StructureSet
from deepmd_mft.uncertainty.estimate import Reference
from deepmd_mft.uncertainty.intervals import IntervalCalibration
from deepmd_mft.uncertainty.probabilities import ClassCalibration

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from deepmd_mft.checkpoints.model_file import ModelFile
    from deepmd_mft.uncertainty.calibration import Calibration
    from deepmd_mft.uncertainty.estimate import Looked

__all__ = ["calibrate", "check_apart", "load_calibration", "recorded_training"]

#: Training structures kept; drawn at random if there are more.
MOST = 5000


def calibrate(
    train: Looked, ids: list[str], valid: Looked, label: np.ndarray, record: dict[str, Any]
) -> Calibration:
    """Calibrate models on validation data.

    Parameters
    ----------
    train, valid : Looked
    ids : list of str
        Names of the training structures.
    label : np.ndarray
        Of the validation structures, nframes x columns.
    record : dict
        Kept in the file, with the ``seed`` of the draw of training structures.
    """
    chosen = np.arange(len(ids))
    if len(ids) > MOST:
        draw = np.random.default_rng(record["seed"]).choice(len(ids), MOST, replace=False)
        chosen = np.sort(draw)
    reference = Reference(
        [ids[row] for row in chosen.tolist()],
        [values[chosen] for values in train.latent],
        train.fingerprints[chosen],
    )
    return _kind(record).fit(train, valid, label, record, reference)


def load_calibration(path: Path, checksums: list[str]) -> Calibration:
    """Read the file for models of these checksums.

    Raises
    ------
    UserError
        If it is none, or one of other models.
    """
    if not path.is_file():
        raise UserError(f"calibration {path} does not exist; `dp-mft calibrate` makes it")
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
        record = json.loads(str(found["record"]))
        made = _kind(record).load(record, found)
        known = [one["weights_sha256"] for one in record["models"]]
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, TypeError):
        raise UserError(f"{path} is no calibration of `dp-mft calibrate`; make it anew") from None
    if known != checksums:
        names = ", ".join(one["path"] for one in record["models"])
        raise UserError(
            f"{path} is the calibration of other models, or in another order: {names}; give "
            "those (frozen or not), or calibrate these with `dp-mft calibrate`"
        )
    return made


def _kind(record: dict[str, Any]) -> type[Calibration]:
    return ClassCalibration if record["num_classes"] else IntervalCalibration


def recorded_training(files: Sequence[ModelFile], given: Sequence[Path]) -> list[StructureSet]:
    """Return what the runs of the models were trained on by their own records, if not ``given``.

    Nothing of a model outside its run, or one whose training data are not where they were.
    """
    known = {path.resolve() for path in given}
    found = []
    for file in files:
        try:
            run = TrainingRun(folder_of_run(file.path))
            branch = run.property_branch(file.branch)
            systems = run.systems(branch, "training_data")
            written = run.system_paths(branch, "training_data")
        except (UserError, FileNotFoundError):
            continue
        places = {path.resolve() for path in (*systems, *written)}
        if systems and not places & known:
            known |= places
            found.append(StructureSet(f"of {run.input_file}", systems))
    return found


def check_apart(train: StructureSet, valid: StructureSet) -> None:
    """Refuse a calibration set that is a test set, or shares structures with the training set.

    Raises
    ------
    UserError
        With the number of shared structures and the first of them.
    """
    for folder in valid.folders:
        test = find_test_set(folder)
        if test:
            raise UserError(
                f"{folder}: {test} is a test set by its name; calibrate on validation data, or no "
                "figure on the test set can be believed"
            )
    both = [*train.with_some_names(), *valid.with_some_names()]
    known = duplicate_groups([""] * len(both), [*train.smiles, *valid.smiles], both)
    shared = np.flatnonzero(np.isin(known[len(train) :], known[: len(train)]))
    if len(shared):
        raise UserError(
            f"{len(shared)} of {len(valid)} structures of {valid.name} are in the training set "
            f"{train.name} too ({valid.ids[int(shared[0])]} first); errors of what a model was "
            "trained on are too small, give validation data"
        )
