"""Folds to folders and back: four folders per fold, and one ``split.json``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from deepmd_mft.errors import UserError
from deepmd_mft.files.records import write_record
from deepmd_mft.files.staging import staged_folder
from deepmd_mft.files.versions import package_versions
from deepmd_mft.splits.record import FORMAT, folder_names, rows_checksum
from deepmd_mft.structures.places import folder_checksum

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from deepmd_mft.splits.fold import Fold
    from deepmd_mft.structures.structure_set import StructureSet

__all__ = ["write_split"]


def write_split(
    data: StructureSet,
    folds: list[Fold],
    out: Path,
    *,
    method: str,
    parameters: dict[str, Any],
    only: list[str] | None = None,
    original: dict[str, Any] | None = None,
    inputs: Sequence[Path] = (),
    overwrite: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Write ``out/train``, ``val``, ``id_test``, ``ood_test`` and ``out/split.json``.

    With several folds the four folders lie in ``out/fold_00``, ``fold_01`` and so on. A part
    without rows is an empty folder.

    Parameters
    ----------
    data : StructureSet
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
    inputs : sequence of Path
        What else was read; never replaced.
    overwrite : bool
        Replace an existing folder that a split wrote.
    progress : bool
        Show a progress bar.

    Returns
    -------
    dict
        The content of ``split.json``.
    """
    folders = folder_names(folds)
    _check_chosen(only, folds)
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
        "versions": package_versions(),
        "folds": [],
    }
    with staged_folder(out, "split", [data.path, *inputs], overwrite=overwrite) as partial:
        bar = tqdm(folds, unit=" folds", disable=not progress or len(folds) == 1)
        for fold, name in zip(bar, folders, strict=True):
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
        write_record(partial, "split", record, indent=None)
    return record


def _check_chosen(only: list[str] | None, folds: list[Fold]) -> None:
    names = [fold.name for fold in folds]
    unknown = [name for name in only or [] if name not in names]
    if not unknown:
        return
    if names == [""]:
        raise UserError(f"--write {unknown[0]}: this split has one fold, without a name")
    raise UserError(f"--write: no fold {unknown[0]!r}; there are {', '.join(names)}")


def _check(fold: Fold, nrows: int) -> None:
    every = np.concatenate(list(fold.parts().values()))
    inside = not len(every) or (every.min() >= 0 and every.max() < nrows)
    if len(np.unique(every)) != len(every) or not inside:
        # A bug, not a user's mistake: what comes from files was checked where it was read.
        raise RuntimeError(f"fold {fold.name!r} has a row twice or outside the data set")
    if not len(fold.train):
        raise UserError(f"fold {fold.name!r} has no training rows; make the other parts smaller")


def _compare(original: dict[str, Any], rebuilt: dict[str, Any]) -> None:
    """Refuse a rebuilt split whose folders have other checksums than the original's."""
    for old, new in zip(original["folds"], rebuilt["folds"], strict=True):
        for part, checksum in new["sha256"].items():
            if old["sha256"].get(part, checksum) != checksum:
                raise UserError(
                    f"fold {old['name'] or '0'}, {part}: same rows, other contents; the data "
                    "set was converted differently (other labels, type map or versions)"
                )
