"""``split.json``: what a split was, checked like any file that comes from elsewhere."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from deepmd_mft.errors import UserError
from deepmd_mft.files.names import path_component
from deepmd_mft.splits.fold import PARTS, Fold

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from deepmd_mft.structures.structure_set import StructureSet

__all__ = ["FORMAT", "folder_names", "read_record", "rebuild", "rows_checksum"]

FORMAT = "deepmd_mft split, version 1"


def rows_checksum(data: StructureSet) -> str:
    """SHA-256 over the names of all rows in order: which rows the numbers mean."""
    digest = hashlib.sha256()
    for name in data.rows.ids:
        digest.update(name.encode() + b"\0")
    return digest.hexdigest()


def folder_names(folds: list[Fold]) -> list[str]:
    """Folder of each fold below the output: empty where there is only one without a name.

    Raises
    ------
    UserError
        If a name cannot be a folder, or two folds would be written to one.
    """
    if len(folds) == 1 and not folds[0].name:
        return [""]
    names = [
        f"fold_{int(fold.name):02d}"
        if fold.name.isascii() and fold.name.isdecimal()
        else path_component(fold.name, f"fold {number}")
        for number, fold in enumerate(folds)
    ]
    seen: dict[str, str] = {"split.json": "split.json"}
    for fold, name in zip(folds, names, strict=True):
        if name.lower() in seen:
            raise UserError(
                f"fold {fold.name!r} and {seen[name.lower()]!r} would be written to one place, "
                f"{name}; rename one"
            )
        seen[name.lower()] = fold.name
    return names


def rebuild(data: StructureSet, groups: np.ndarray, *, split_json: Path) -> list[Fold]:  # noqa: ARG001
    """Take the folds of a ``split.json`` as they are.

    Parameters
    ----------
    data : StructureSet
        The set it was made from (it may have been moved or converted anew).
    groups : np.ndarray
        Not looked at: the rows are given.
    split_json : Path
        The file.
    """
    record = read_record(split_json)
    wanted = record["data"]
    if wanted["rows"] != len(data) or wanted["rows_sha256"] != rows_checksum(data):
        raise UserError(
            f"{split_json} divides {wanted['rows']:,} rows of {wanted['path']}; {data.path} has "
            f"{len(data):,} rows, or the same number under other names or in another order"
        )
    return [
        Fold(fold["name"], *(np.array(fold[part], dtype=np.int64) for part in PARTS))
        for fold in record["folds"]
    ]


def read_record(path: Path) -> dict[str, Any]:
    """Read ``split.json``.

    Raises
    ------
    UserError
        With the key, for everything that is not as ``dp-mft split`` writes it.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as split.json ({error})") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise UserError(f"{path} is not a split.json of dp-mft split")
    _expect(record, {"method": str, "parameters": dict, "data": dict, "folds": list}, str(path))
    _expect(record["data"], {"path": str, "rows": int, "rows_sha256": str}, f"{path}, data")
    if not record["folds"]:
        raise UserError(f"{path}, folds: there are none")
    for number, fold in enumerate(record["folds"]):
        where = f"{path}, folds[{number}]"
        if not isinstance(fold, dict):
            raise UserError(f"{where} is not an object but {fold!r}")
        _expect(fold, {"name": str, "sha256": dict} | dict.fromkeys(PARTS, list), where)
        if fold["name"] or len(record["folds"]) > 1:
            path_component(fold["name"], f"{where}, name")
        _check_rows(fold, record["data"]["rows"], where)
    return record


def _expect(content: dict[str, Any], kinds: Mapping[str, type], where: str) -> None:
    words = {str: "a text", dict: "an object", list: "a list", int: "a whole number"}
    for key, kind in kinds.items():
        if key not in content:
            raise UserError(f"{where} has no {key}")
        if type(content[key]) is not kind:
            text = repr(content[key])
            raise UserError(
                f"{where}, {key}: expected {words[kind]}, not {text[:60]}"
                + ("..." if len(text) > 60 else "")
            )


def _check_rows(fold: dict[str, Any], nrows: int, where: str) -> None:
    part_of: dict[int, str] = {}
    for part in PARTS:
        for place, row in enumerate(fold[part]):
            if type(row) is not int:
                raise UserError(f"{where}, {part}[{place}]: {row!r} is not a row number")
            if not 0 <= row < nrows:
                raise UserError(
                    f"{where}, {part}[{place}]: row {row} is not one of the {nrows:,} rows "
                    f"(0 to {nrows - 1})"
                )
            if row in part_of:
                raise UserError(f"{where}, {part}[{place}]: row {row} is in {part_of[row]} already")
            part_of[row] = part
