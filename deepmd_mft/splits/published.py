"""Published folds: JSON of fold name to row numbers, as Omee et al. released them."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from deepmd_mft.errors import UserError
from deepmd_mft.files.names import path_component
from deepmd_mft.splits.fold import Fold, amount, draw, generator

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["from_file", "read_fold_file"]

_NONE = np.empty(0, dtype=np.int64)


def from_file(
    source_rows: np.ndarray,
    groups: np.ndarray,
    *,
    test_file: Path,
    val_file: Path | None = None,
    val: float = 0.2,
    seed: int = 0,
) -> list[Fold]:
    """Folds whose OOD test set (and validation set) are given; the rest trains.

    The published sets stay as they are, whatever the groups; a validation set that is drawn
    here is drawn group by group.

    Parameters
    ----------
    source_rows : np.ndarray
        Row of the source that each row of the data set was, shape ``nrows``.
    groups : np.ndarray
        Group of every row, shape ``nrows``.
    test_file : Path
        OOD test rows of each fold (:func:`read_fold_file`).
    val_file : Path, optional
        Validation rows, matched by fold name; drawn at random if not given.
    val : float
        Count or fraction of the validation set, if it is drawn.
    seed : int
        Seed of that draw.
    """
    rng = generator(seed)
    tests = read_fold_file(test_file, source_rows)
    given = None if val_file is None else read_fold_file(val_file, source_rows)
    folds = []
    for name, test in tests.items():
        if not len(test):
            raise UserError(f"{test_file}, fold {name!r} has no rows")
        rest = np.setdiff1d(np.arange(len(groups)), test)
        if given is None:
            chosen, rest = draw(rest, groups, amount(val, len(rest), "--val"), rng)
        elif name not in given:
            raise UserError(
                f"fold {name!r} of the test file is not in the validation file {val_file}"
            )
        else:
            chosen = given[name]
            both = np.intersect1d(test, chosen)
            if len(both):
                raise UserError(
                    f"{val_file}, fold {name!r}: row {source_rows[both[0]]} is in test and in "
                    "validation"
                )
            rest = np.setdiff1d(rest, chosen)
        folds.append(Fold(name, rest, chosen, _NONE, test))
    return folds


def read_fold_file(path: Path, source_rows: np.ndarray) -> dict[str, np.ndarray]:
    """Read fold name to row numbers; a bare list is one fold.

    Parameters
    ----------
    path : Path
        JSON or JSON.gz; numbers count the rows of the *source*, from 0.
    source_rows : np.ndarray
        Row of the source that each row of the data set was, shape ``nrows``.

    Returns
    -------
    dict of str to np.ndarray
        Rows of the data set, ascending.
    """
    content = _read_json(path)
    if isinstance(content, list):
        content = {"0": content}
    if not isinstance(content, dict) or not all(isinstance(v, list) for v in content.values()):
        raise UserError(f"{path}: expected {{fold: [row, ...]}} or a list of rows")
    if not content:
        raise UserError(f"{path} names no folds")
    place = {int(source): row for row, source in enumerate(source_rows)}
    folds = {}
    for name, rows in content.items():
        where = f"{path}, fold {name!r}"
        path_component(name, where)
        wrong = next((row for row in rows if type(row) is not int), None)
        if wrong is not None or None in rows:
            raise UserError(f"{where}: {wrong!r} is not a row number")
        unknown = next((row for row in rows if row not in place), None)
        if unknown is not None:
            raise UserError(
                f"{where}: row {unknown} is not in the data set, which has "
                f"{len(source_rows):,} rows (source rows {int(source_rows.min())} to "
                f"{int(source_rows.max())}); is the file for another data set, or were rows "
                "skipped when it was converted?"
            )
        if len(set(rows)) != len(rows):
            twice = next(row for row in rows if rows.count(row) > 1)
            raise UserError(f"{where} names a row twice ({twice})")
        folds[name] = np.sort(np.array([place[row] for row in rows], dtype=np.int64))
    _check_partition(path, content, len(source_rows))
    return folds


def _read_json(path: Path) -> Any:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as handle:
            return json.load(handle, object_pairs_hook=lambda pairs: _unique(pairs, path))
    except UserError:
        raise
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a complete JSON file ({error})") from error


def _unique(pairs: list[tuple[str, Any]], path: Path) -> dict[str, Any]:
    """Build an object; JSON itself takes the last of two equal keys without a word."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{path} has two folds called {twice!r}")
    return found


def _check_partition(path: Path, content: dict[str, list[int]], nrows: int) -> None:
    """Refuse folds that divide another number of rows than the source had."""
    listed = [row for rows in content.values() for row in rows]
    every = len(set(listed)) == len(listed) == max(listed, default=-1) + 1
    if len(content) > 1 and every and len(listed) != nrows:
        raise UserError(
            f"{path} divides {len(listed):,} rows among its folds, but the data set has "
            f"{nrows:,}; it was made for another data set"
        )
