"""Models on split folders: predictions, metrics and groups as tables, and their files."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from deepmd_mft.errors import UserError
from deepmd_mft.evaluation.metrics import CLASSES, REGRESSION, groups, intervals, measure
from deepmd_mft.files.checksums import file_checksum
from deepmd_mft.files.records import write_record
from deepmd_mft.files.versions import package_versions
from deepmd_mft.inference.predictor import ModelFile, Output, Predictor

if TYPE_CHECKING:
    from pathlib import Path

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
        One row a structure.
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
        """Return mean and standard deviation over the files that share a name."""
        names = [n for n in (*REGRESSION, *CLASSES) if n in self.metrics]
        by = self.metrics.groupby(["model", "property", "set"], sort=False)
        table = by[names].agg(["mean", "std"])
        table.columns = ["_".join(column) for column in table.columns]
        table.insert(0, "files", by.size())
        return table.reset_index()

    def write(self, folder: Path, *, table_format: str = "csv") -> None:
        """Write ``metrics.csv``, ``groups.csv``, ``seeds.csv``, predictions and the record.

        Parameters
        ----------
        folder : Path
            An empty folder, as :func:`~deepmd_mft.files.staging.staged_folder` gives it.
        table_format : {"csv", "parquet"}
            Of the predictions.
        """
        self.metrics.to_csv(folder / "metrics.csv", index=False)
        self.groups.to_csv(folder / "groups.csv", index=False)
        if self.metrics.duplicated(["model", "property", "set"]).any():
            self.seeds().to_csv(folder / "seeds.csv", index=False)
        if table_format == "parquet":
            self.predictions.to_parquet(folder / "predictions.parquet", index=False)
        else:
            self.predictions.to_csv(folder / "predictions.csv", index=False)
        write_record(folder, "evaluate", self.record)


def evaluate(
    models: list[ModelFile], sets: list[StructureSet], *, progress: bool = True
) -> Evaluation:
    """Evaluate every model on every set.

    Parameters
    ----------
    models : list of ModelFile
        Files that share a name are seeds of one model.
    sets : list of StructureSet
    progress : bool
        Show a bar.

    Raises
    ------
    UserError
        If a model cannot be loaded, or predicts nothing that the sets could hold.
    """
    rows: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    tables: list[pd.DataFrame] = []
    notes: list[str] = []
    record = _record(sets)
    total = len(models) * sum(map(len, sets))
    with tqdm(total=total, unit=" structures", disable=not progress, mininterval=0.5) as bar:
        for file in models:
            predictor = Predictor.load(file.path, file.head)
            record["models"].append(
                {
                    "name": file.name,
                    "path": str(file.path.resolve()),
                    "sha256": file_checksum(file.path),
                    "head": predictor.head or None,
                    "params": predictor.params,
                }
            )
            for structures in sets:
                bar.set_postfix_str(f"{file.name} on {structures.name}")
                found = predictor.predict(predictor.batches(structures), bar.update)
                for output in predictor.outputs:
                    keys = {
                        "model": file.name,
                        "file": str(file.path),
                        "property": output.name,
                        "set": structures.name,
                    }
                    prediction = found[output.name]
                    label = structures.labels(output.name, output.label_columns)
                    rows.append({**keys, **_row(prediction, label, output)})
                    notes += _notes(keys, prediction, label, structures)
                    if label is not None:
                        parts += _groups(keys, prediction, label, structures, output)
                    tables.append(_table(keys, prediction, label, structures))
    return Evaluation(pd.DataFrame(rows), pd.DataFrame(parts), pd.concat(tables), record, notes)


def _record(sets: list[StructureSet]) -> dict[str, Any]:
    return {
        "made_by": "dp-mft evaluate",
        "date": dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        "versions": package_versions(),
        "sets": {
            one.name: {
                "frames": len(one),
                "unit": one.unit,
                "split": one.split_method,
                "folders": one.checksum(),
            }
            for one in sets
        },
        "models": [],
    }


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
        "formula": structures.formulas,
        "natoms": structures.natoms,
    }
    for name, values in (("label", label), ("prediction", prediction)):
        if values is None:
            table[name] = np.nan
            continue
        for column in range(values.shape[1]):
            table[name if values.shape[1] == 1 else f"{name}_{column}"] = values[:, column]
    return pd.DataFrame(table)


def read_evaluation(folder: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return predictions and record of a folder that :meth:`Evaluation.write` made.

    Raises
    ------
    UserError
        If it is no such folder.
    """
    try:
        record = json.loads((folder / "evaluation.json").read_text())
        parquet = folder / "predictions.parquet"
        if parquet.is_file():
            return pd.read_parquet(parquet), record
        return pd.read_csv(folder / "predictions.csv"), record
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder} is not a folder of `dp-mft evaluate` ({error}); evaluate again"
        ) from None


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
