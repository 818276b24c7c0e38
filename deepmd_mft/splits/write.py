"""Folds to folders and back: four folders a fold, and one ``split.json``."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from deepmd_mft.data.writers.base import library_versions
from deepmd_mft.errors import UserError
from deepmd_mft.files.staging import staged_folder
from deepmd_mft.splits.fold import PARTS, Fold
from deepmd_mft.structures.dataset import folder_checksum

if TYPE_CHECKING:
    from pathlib import Path

    from deepmd_mft.structures.dataset import DataSet

__all__ = ["read_split", "rows_checksum", "write_split"]

FORMAT = "deepmd_mft split, version 1"


def rows_checksum(data: DataSet) -> str:
    """SHA-256 over the names of all rows in order: which rows the numbers mean."""
    digest = hashlib.sha256()
    for name in data.rows.ids:
        digest.update(name.encode() + b"\0")
    return digest.hexdigest()


def folder_name(fold: Fold) -> str:
    """Folder of a fold below the output: empty where there is only one."""
    return f"fold_{int(fold.name):02d}" if fold.name.isdigit() else fold.name


def write_split(
    data: DataSet,
    folds: list[Fold],
    out: Path,
    *,
    method: str,
    parameters: dict[str, Any],
    only: list[str] | None = None,
    original: dict[str, Any] | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Write ``out/train``, ``val``, ``id_test``, ``ood_test`` and ``out/split.json``.

    With several folds the four folders lie in ``out/fold_00``, ``fold_01`` and so on. A part
    without rows is an empty folder.

    Parameters
    ----------
    data : DataSet
        The set that was divided.
    folds : list of Fold
        The division.
    out : Path
        Folder to write.
    method : str
        Name of the method.
    parameters : dict
        What it was called with, the seed among it.
    only : list of str, optional
        Names of the folds whose folders are written; ``split.json`` describes all of them.
    original : dict, optional
        ``split.json`` that this must reproduce; nothing is kept if a checksum differs.
    overwrite : bool
        Replace an existing folder.
    progress : bool
        Show a progress bar.

    Returns
    -------
    dict
        The content of ``split.json``.
    """
    names = [fold.name for fold in folds]
    unknown = set(only or []) - set(names)
    if unknown:
        raise UserError(f"no fold {unknown.pop()!r}; there are {', '.join(names)}")
    for fold in folds:
        _check(fold, len(data))
    record: dict[str, Any] = {
        "format": FORMAT,
        "method": method,
        "parameters": parameters,
        "data": {
            "path": str(data.path.resolve()),
            "rows": len(data),
            "rows_sha256": rows_checksum(data),
        },
        "versions": library_versions(),
        "folds": [],
    }
    with staged_folder(out, overwrite=overwrite) as partial:
        for fold in tqdm(folds, unit=" folds", disable=not progress or len(folds) == 1):
            name = folder_name(fold)
            checksums = {}
            if only is None or fold.name in only:
                for part, rows in fold.parts().items():
                    folder = partial / name / part
                    folder.mkdir(parents=True)
                    if len(rows):
                        data.write_part(rows, folder)
                        checksums[part] = folder_checksum(folder)
            rows_of = {part: rows.tolist() for part, rows in fold.parts().items()}
            record["folds"].append(
                {"name": fold.name, "folder": name, "sha256": checksums, **rows_of}
            )
        if original is not None:
            _compare(original, record)
        (partial / "split.json").write_text(json.dumps(record) + "\n")
    return record


def _check(fold: Fold, nrows: int) -> None:
    every = np.concatenate(list(fold.parts().values()))
    if len(np.unique(every)) != len(every) or len(every) > nrows:
        raise RuntimeError(f"fold {fold.name!r} has a row twice")  # a bug, not a user's mistake
    if not len(fold.train):
        raise UserError(f"fold {fold.name!r} has no training rows; make the other parts smaller")


def read_split(path: Path, data: DataSet) -> tuple[list[Fold], dict[str, Any]]:
    """Read ``split.json`` for writing it again.

    Parameters
    ----------
    path : Path
        The file.
    data : DataSet
        The set it was made from (it may have been moved or converted anew).

    Returns
    -------
    folds : list of Fold
        The same rows.
    record : dict
        The content of the file.
    """
    try:
        record = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise UserError(f"{path} cannot be read as split.json ({error})") from error
    if record.get("format") != FORMAT:
        raise UserError(f"{path} is not a split.json of dp-mft split")
    wanted = record["data"]
    if wanted["rows"] != len(data) or wanted["rows_sha256"] != rows_checksum(data):
        raise UserError(
            f"{path} divides {wanted['rows']:,} rows of {wanted['path']}; {data.path} has "
            f"{len(data):,} rows, or the same number under other names or in another order"
        )
    folds = [
        Fold(fold["name"], *(np.array(fold[part], dtype=np.int64) for part in PARTS))
        for fold in record["folds"]
    ]
    return folds, record


def _compare(original: dict[str, Any], rebuilt: dict[str, Any]) -> None:
    """Refuse a rebuilt split whose folders have other checksums than the original's."""
    for old, new in zip(original["folds"], rebuilt["folds"], strict=True):
        for part, checksum in new["sha256"].items():
            if old["sha256"].get(part, checksum) != checksum:
                raise UserError(
                    f"fold {old['name'] or '0'}, {part}: same rows, other contents; the data "
                    "set was converted differently (other labels, type map or versions)"
                )
