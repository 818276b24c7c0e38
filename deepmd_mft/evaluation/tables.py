"""Models on split folders: predictions, metrics and groups as tables, and their files."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from deepmd_mft.errors import UserError
from deepmd_mft.evaluation.aggregate import over_folds, over_seeds
from deepmd_mft.evaluation.force_field import force_field_tables
from deepmd_mft.evaluation.labels import check_units, labels_of
from deepmd_mft.evaluation.metrics import groups, intervals, measure
from deepmd_mft.files.checksums import file_checksum
from deepmd_mft.files.records import write_record
from deepmd_mft.files.versions import package_versions
from deepmd_mft.inference.predictor import Output, Predictor
from deepmd_mft.names import CLASSES, REGRESSION
from deepmd_mft.structures.pooling import Pooling

if TYPE_CHECKING:
    from deepmd_mft.checkpoints.model_file import ModelFile
    from deepmd_mft.structures.structure_set import StructureSet

KEYS = ["model", "file", "property", "set"]


@dataclass
class Evaluation:
    """Several models on several sets.

    Attributes
    ----------
    metrics : pd.DataFrame
        One row for each model file, property and set.
    groups : pd.DataFrame
        The same for each group of structures: by element, size, target decile.
    predictions : pd.DataFrame
        One row per structure, or per group of structures that has one label (of a force field its
        energy, and the RMSE of its forces).
    record : dict
        Models, sets, checksums and versions.
    notes : list of str
        What the reader has to be told: sets without labels, predictions that are NaN.
    """

    metrics: pd.DataFrame
    groups: pd.DataFrame
    predictions: pd.DataFrame
    record: dict[str, Any]
    notes: list[str]

    @property
    def has_nan(self) -> bool:
        """Whether some prediction is not a number."""
        return bool(self.metrics["nan_predictions"].sum())

    def seeds(self) -> pd.DataFrame:
        """Return mean and standard deviation over the files (seeds) that share name and set."""
        return over_seeds(self.metrics, ["model", "property"], self._names)

    @property
    def has_seeds(self) -> bool:
        """Whether some files share a name, property and set."""
        return bool((self.seeds()["files"] > 1).any())

    def folds(self) -> pd.DataFrame:
        """Return mean and standard deviation over folds, seeds of a fold first; may be empty."""
        return over_folds(self.metrics, ["model", "property"], self._names)

    @property
    def _names(self) -> list[str]:
        return [name for name in (*REGRESSION, *CLASSES) if name in self.metrics]

    def write(self, folder: Path, *, table_format: str = "csv") -> None:
        """Write the tables, those of seeds and folds if there are any, and the record.

        Parameters
        ----------
        folder : Path
            An empty folder, as :func:`~deepmd_mft.files.staging.staged_folder` gives it.
        table_format : {"csv", "parquet"}
            Of the predictions.
        """
        self.metrics.to_csv(folder / "metrics.csv", index=False)
        self.groups.to_csv(folder / "groups.csv", index=False)
        if self.has_seeds:
            self.seeds().to_csv(folder / "seeds.csv", index=False)
        if not self.folds().empty:
            self.folds().to_csv(folder / "folds.csv", index=False)
        if table_format == "parquet":
            self.predictions.to_parquet(folder / "predictions.parquet", index=False)
        else:
            self.predictions.to_csv(folder / "predictions.csv", index=False)
        write_record(folder, "evaluate", self.record)


def evaluate(
    models: list[ModelFile],
    sets: list[list[StructureSet]],
    *,
    progress: bool = True,
) -> Evaluation:
    """Evaluate every model on its sets.

    Parameters
    ----------
    models : list of ModelFile
        Files that share a name are seeds (or folds) of one model.
    sets : list of list of StructureSet
        Those of each model.
    progress : bool
        Show a bar.

    Raises
    ------
    UserError
        If a model cannot be loaded, or its sets have labels in different units.
    """
    parts = _Parts()
    record = _record([one for part in sets for one in part])
    total = sum(len(one) for part in sets for one in part)
    with tqdm(total=total, unit=" structures", disable=not progress, mininterval=0.5) as bar:
        for file, part in zip(models, sets, strict=True):
            predictor = Predictor.load(file.path, file.branch)
            check_units(part, [output.name for output in predictor.outputs])
            record["models"].append(
                {
                    "name": file.name,
                    "path": str(file.path.resolve()),
                    "sha256": file_checksum(file.path),
                    "head": predictor.branch or None,
                    "params": predictor.params,
                }
            )
            for one in part:
                structures = one.with_type_map(predictor.type_map)
                bar.set_postfix_str(f"{file.name} on {structures.name}")
                found = predictor.predict(predictor.batches(structures), bar.update)
                keys = {"model": file.name, "file": str(file.path)}
                if predictor.is_force_field:
                    parts.add_force_field(keys, structures, found)
                    continue
                pooling = Pooling(structures)
                parts.tell_groups(pooling)
                for output in predictor.outputs:
                    pooled = pooling.mean(found[output.name])
                    parts.add(keys, pooling.structures, output, pooled)
    return Evaluation(
        pd.DataFrame(parts.metrics),
        pd.DataFrame(parts.groups),
        pd.concat(parts.predictions),
        record,
        list(dict.fromkeys(parts.notes)),
    )


class _Parts:
    """The rows of the tables, as they come."""

    def __init__(self) -> None:
        self.metrics: list[dict[str, Any]] = []
        self.groups: list[dict[str, Any]] = []
        self.predictions: list[pd.DataFrame] = []
        self.notes: list[str] = []

    def add(
        self, keys: dict[str, str], structures: StructureSet, output: Output, prediction: np.ndarray
    ) -> None:
        """Add the predictions of a property."""
        keys = {**keys, "property": output.name, "set": structures.name}
        label = labels_of(structures, output)
        self.metrics.append({**keys, **_row(prediction, label, output)})
        self.notes += _notes(keys, prediction, label, structures)
        if label is not None:
            self.groups += _groups(keys, prediction, label, structures, output)
        self.predictions.append(_table(keys, prediction, label, structures))

    def tell_groups(self, pooling: Pooling) -> None:
        """Say that there is one error for each group, if labels belong to groups."""
        if pooling.of_groups:
            self.notes.append(
                f"{pooling.frames.name}: {len(pooling.structures)} groups of "
                f"{len(pooling.frames)} structures; one label, one prediction (the mean over the "
                "group) and one error for each group"
            )

    def add_force_field(
        self, keys: dict[str, str], structures: StructureSet, found: dict[str, np.ndarray]
    ) -> None:
        """Add the predictions of energies, forces and virials."""
        keys = {**keys, "set": structures.name}
        rows, label, each = force_field_tables(structures, found)
        self.metrics += [{**keys, **row} for row in rows]
        keys = {**keys, "property": "energy"}
        self.notes += _notes(keys, found["energy"], label, structures)
        table = _table(keys, found["energy"], label, structures)
        self.predictions.append(table.assign(force_rmse=each))
        if label is not None:
            natoms = structures.natoms[:, None]
            own = ({**keys, "property": "energy_per_atom"}, found["energy"] / natoms)
            self.groups += _groups(*own, label / natoms, structures, Output("energy", 1))


def _record(sets: list[StructureSet]) -> dict[str, Any]:
    return {
        "made_by": "dp-mft evaluate",
        "date": dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        "versions": package_versions(),
        "sets": {
            one.name: {
                "frames": len(one),
                **_groups_of(one),
                "unit": one.units,
                "split": one.split_method,
                "split_seed": _split_seed(one),
                "folders": [
                    {**folder, "path": str(Path(folder["path"]).absolute())}
                    for folder in one.checksum()
                ],
            }
            for one in sets
        },
        "models": [],
    }


def _groups_of(structures: StructureSet) -> dict[str, int]:
    """Return how many groups have the labels, if they are not of frames."""
    pooling = Pooling(structures)
    return {"groups": len(pooling.structures)} if pooling.of_groups else {}


def _split_seed(structures: StructureSet) -> int | None:
    """Return the seed of the split that made a set, from the ``split.json`` that names its method.

    None if there is none, or it says no seed.
    """
    if structures.split_method is None:
        return None
    for above in list(structures.folders[0].resolve().parents)[:2]:
        if (above / "split.json").is_file():
            parameters = json.loads((above / "split.json").read_text()).get("parameters", {})
            return parameters.get("seed") if isinstance(parameters, dict) else None
    return None


def _row(prediction: np.ndarray, label: np.ndarray | None, output: Output) -> dict[str, Any]:
    classes = output.num_classes is not None
    row: dict[str, Any] = {
        "frames": len(prediction),
        "labelled": 0 if label is None else int(np.isfinite(label).all(axis=1).sum()),
        "nan_predictions": int((~np.isfinite(prediction)).any(axis=1).sum()),
    }
    if label is None:
        return {**row, **dict.fromkeys(CLASSES if classes else REGRESSION, np.nan)}
    return {
        **row,
        **measure(prediction, label, classes=classes),
        **intervals(prediction, label, classes=classes),
    }


def _notes(
    keys: dict[str, str],
    prediction: np.ndarray,
    label: np.ndarray | None,
    structures: StructureSet,
) -> list[str]:
    notes = []
    if label is None:
        notes.append(
            f"{structures.name} has no labels of {keys['property']}: predicted only, no errors"
        )
    bad = np.flatnonzero((~np.isfinite(prediction)).any(axis=1))
    if len(bad):
        notes.append(
            f"{keys['file']} on {structures.name}: {len(bad)} of {len(prediction)} predictions are "
            f"NaN or inf (first: {structures.ids[bad[0]]}), so the errors are NaN too. The "
            "training has diverged, or the structure has atoms on top of each other"
        )
    return notes


def _groups(
    keys: dict[str, str],
    prediction: np.ndarray,
    label: np.ndarray,
    structures: StructureSet,
    output: Output,
) -> list[dict[str, Any]]:
    classes = output.num_classes is not None
    return [
        {
            **keys,
            "kind": kind,
            "group": name,
            "frames": len(rows),
            **measure(prediction[rows], label[rows], classes=classes),
        }
        for (kind, name), rows in groups(structures, label).items()
        if not (classes and kind == "target decile")
    ]


def _table(
    keys: dict[str, str],
    prediction: np.ndarray,
    label: np.ndarray | None,
    structures: StructureSet,
) -> pd.DataFrame:
    table: dict[str, Any] = {
        **keys,
        "id": structures.ids,
        "smiles": structures.smiles,
        "formula": structures.formulas,
        "natoms": structures.natoms,
        "unit": structures.units.get(keys["property"], ""),
    }
    for name, values in (("label", label), ("prediction", prediction)):
        if values is None:
            table[name] = np.nan
            continue
        for column in range(values.shape[1]):
            table[name if values.shape[1] == 1 else f"{name}_{column}"] = values[:, column]
    return pd.DataFrame(table)


#: Columns of the predictions that hold text, whatever it looks like: a set called 29, an id 001.
TEXT = ("model", "file", "property", "set", "id", "smiles", "formula", "unit")


def read_evaluation(folder: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return predictions and record of a folder that :meth:`Evaluation.write` made.

    Raises
    ------
    UserError
        If it is no such folder.
    """
    try:
        record = json.loads((folder / "evaluation.json").read_text())
        parquet, csv = folder / "predictions.parquet", folder / "predictions.csv"
        if parquet.is_file():
            return pd.read_parquet(parquet), record
        table = pd.read_csv(csv, dtype=str, keep_default_na=False)
        numbers = [name for name in table if name not in TEXT]
        table[numbers] = table[numbers].replace("", "nan").astype(float)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder} is not a folder of `dp-mft evaluate` ({error}); evaluate again"
        ) from None
    return table, record


def text_table(table: pd.DataFrame) -> str:
    """Return the errors as text, aligned, four digits."""
    names = [n for n in (*REGRESSION, *CLASSES) if n in table and table[n].notna().any()]
    shown = table[["model", "property", "set", "labelled"]].copy()
    for name in names:
        shown[name] = [f"{value:.4g}" for value in table[name]]
        if f"{name}_low" in table:
            shown[f"{name} 95 %"] = [
                f"{low:.4g} to {high:.4g}"
                for low, high in zip(table[f"{name}_low"], table[f"{name}_high"], strict=True)
            ]
    return str(shown.to_string(index=False))
