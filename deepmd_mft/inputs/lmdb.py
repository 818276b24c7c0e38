"""Elements, labels and cells of an LMDB, record by record: it has no files to look at."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lmdb
import numpy as np

from deepmd_mft.bridge.reading import lmdb_frames, lmdb_type_map
from deepmd_mft.errors import UserError
from deepmd_mft.files.lmdb import check_complete
from deepmd_mft.inputs.labels import check_classes, needed_labels
from deepmd_mft.inputs.systems import (
    HEADS_OF_MOLECULES,
    cell_problem,
    periodic_error,
    rows_text,
    unknown_elements,
)
from deepmd_mft.names import GROUP

if TYPE_CHECKING:
    from deepmd_mft.inputs.branches import Branch
    from deepmd_mft.inputs.findings import Findings
    from deepmd_mft.inputs.labels import Label


def check_whole(path: str) -> None:
    """Check that an LMDB is there as a whole: reading beyond its end kills the process.

    Raises
    ------
    UserError
        If it cannot be opened or is cut off.
    """
    try:
        environment = lmdb.open(path, readonly=True, lock=False, create=False)
    except lmdb.Error as error:
        raise UserError(f"{path} cannot be opened as LMDB ({error})") from None
    try:
        check_complete(environment, Path(path) / "data.mdb")
    finally:
        environment.close()


def check_lmdb(path: str, branch: Branch, findings: Findings) -> dict[str, np.ndarray]:
    """Check an LMDB in one pass over its records.

    Parameters
    ----------
    path : str
    branch : Branch
    findings : Findings
        Filled.

    Returns
    -------
    dict of str to np.ndarray
        Labels of the properties that may be missing, nframes x columns, NaN where they are.
    """
    type_map = branch.model.get("type_map") or []
    try:
        check_whole(path)
        unknown = [name for name in lmdb_type_map(path) if type_map and name not in type_map]
        if unknown:
            findings.error(str(unknown_elements({path: unknown}, type_map, branch)))
            return {}
        return _read_records(path, branch, findings)
    except UserError:
        raise
    except (lmdb.Error, ValueError, TypeError, KeyError, AttributeError) as error:
        findings.error(
            f"{branch.where}: {path} cannot be read as a deepmd LMDB ({error or type(error)}); "
            "write it again"
        )
        return {}


def _read_records(path: str, branch: Branch, findings: Findings) -> dict[str, np.ndarray]:
    records = _Records(needed_labels(branch))
    for record in lmdb_frames(path):
        if branch.is_property and GROUP in record:
            raise UserError(
                f"{branch.where}: the labels of {path} belong to groups of frames ({GROUP}), which "
                "deepmd-kit's loader of LMDB would cut into batches; convert the data to "
                "deepmd/npy"
            )
        records.see(record)
    if not records.total:
        findings.error(f"{branch.where}: {path} has no records; remove it from the input")
        return {}
    for (name, trouble), rows in records.wrong.items():
        findings.error(
            f"{branch.where}: {path}: {name} {trouble} in "
            f"{rows_text(np.array(rows), records.total, 'frame')}; mend these records"
            + _masking(branch, trouble)
        )
    if records.cells:
        if branch.head in HEADS_OF_MOLECULES:
            findings.error(str(periodic_error(path, branch)))
        problem = cell_problem(np.array(records.cells), np.array(records.periodic))
        if problem:
            findings.error(f"{branch.where}: {path}: {problem}")
    known = {name: np.array(values) for name, values in records.values.items()}
    for label in records.labels:
        if label.num_classes:
            findings.attempt(check_classes, known[label.name], label, branch, path)
    return known


class _Records:
    """What is kept of the records that have been seen.

    Attributes
    ----------
    values : dict of list of np.ndarray
        Labels of the properties, by name.
    wrong : dict of list of int
        Records by label and trouble.
    cells, periodic : list
        Cells, and the records that they are of.
    """

    def __init__(self, labels: list[Label]) -> None:
        self.labels = labels
        self.total = 0
        self.values: dict[str, list[np.ndarray]] = {o.name: [] for o in labels if o.of_property}
        self.wrong: dict[tuple[str, str], list[int]] = defaultdict(list)
        self.cells: list[np.ndarray] = []
        self.periodic: list[int] = []

    def see(self, record: dict[str, Any]) -> None:
        natoms = np.asarray(record["atype"]).size
        for label in self.labels:
            found, trouble = _label_of(record, label, natoms)
            if trouble:
                self.wrong[label.name, trouble].append(self.total)
            if label.of_property:
                self.values[label.name].append(found)
        box = np.asarray(record.get("box", 0.0), dtype=np.float64)
        if box.size == 9:  # zeros too: deepmd-kit trains with them as a cell, and gets NaN
            self.cells.append(box.reshape(3, 3))
            self.periodic.append(self.total)
        self.total += 1


def _label_of(record: dict[str, Any], label: Label, natoms: int) -> tuple[np.ndarray, str]:
    """Return the label of a record, NaN where there is none, and what is wrong with it."""
    width = label.width(natoms)
    absent = np.full(width, np.nan)
    there = label.name in record and bool(np.asarray(record.get(f"find_{label.name}", 1.0)).any())
    if not there:
        return absent, "" if label.may_miss else "is not there"
    found = np.asarray(record[label.name])
    if found.dtype.kind not in "fiub":
        return absent, f"is no number (it is {found.dtype})"
    if found.size != width:
        return absent, f"has {found.size} number(s), not the {width} that the model expects,"
    found = found.reshape(-1).astype(np.float64)
    if np.isinf(found).any() or (np.isnan(found).any() and not label.may_miss):
        return found, "is inf" if label.may_miss else "is NaN or inf"
    return found, ""


def _masking(branch: Branch, trouble: str) -> str:
    missing = trouble in ("is not there", "is NaN or inf")
    if branch.is_property and branch.is_mft_head and missing and not branch.masks:
        return ", or set missing_labels: mask in the loss to leave out what is missing"
    return ""
