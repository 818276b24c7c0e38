"""Published folds: JSON of fold name to row numbers, as Omee et al. released them."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import TYPE_CHECKING

import numpy as np

from deepmd_mft.errors import UserError
from deepmd_mft.splits.fold import Fold, carve

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["from_file", "read_fold_file"]


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
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt") as handle:
            content = json.load(handle)
    except (OSError, EOFError, zlib.error, json.JSONDecodeError) as error:
        raise UserError(f"{path}: not a complete JSON file ({error})") from error
    if isinstance(content, list):
        content = {"0": content}
    if not isinstance(content, dict) or not all(isinstance(v, list) for v in content.values()):
        raise UserError(f"{path}: expected {{fold: [row, ...]}} or a list of rows")
    place = {int(source): row for row, source in enumerate(source_rows)}
    folds = {}
    for name, rows in content.items():
        unknown = [row for row in rows if row not in place]
        if unknown:
            raise UserError(
                f"{path}, fold {name!r}: row {unknown[0]} is not in the data set, which has "
                f"{len(source_rows):,} rows (source rows {int(source_rows.min())} to "
                f"{int(source_rows.max())}); is the file for another data set, or were rows "
                "skipped when it was converted?"
            )
        if len(set(rows)) != len(rows):
            raise UserError(f"{path}, fold {name!r} names a row twice")
        folds[name] = np.sort(np.array([place[row] for row in rows], dtype=np.int64))
    listed = np.concatenate(list(folds.values()))
    every = len(np.unique(listed)) == len(listed) == listed.max() + 1
    if len(folds) > 1 and every and len(listed) != len(source_rows):
        raise UserError(
            f"{path} divides {len(listed):,} rows among its folds, but the data set has "
            f"{len(source_rows):,}; it was made for another data set"
        )
    return folds


def from_file(
    test: dict[str, np.ndarray],
    validation: dict[str, np.ndarray] | None,
    nrows: int,
    *,
    val: float = 0.2,
    seed: int = 0,
) -> list[Fold]:
    """Folds whose OOD test set (and validation set) are given; the rest trains.

    Parameters
    ----------
    test : dict of str to np.ndarray
        OOD test rows of each fold.
    validation : dict of str to np.ndarray, optional
        Validation rows, matched by fold name; drawn at random if not given.
    nrows : int
        Rows of the data set.
    val : float
        Count or fraction of the validation set, if it is drawn.
    seed : int
        Seed of that draw.
    """
    rng = np.random.default_rng(seed)
    groups = np.arange(nrows)
    if validation is None:
        return [
            carve(name, rows, groups, id_test=0, val=val, rng=rng) for name, rows in test.items()
        ]
    folds = []
    for name, rows in test.items():
        if name not in validation:
            raise UserError(f"fold {name!r} of the test file is not in the validation file")
        both = np.intersect1d(rows, validation[name])
        if len(both):
            raise UserError(f"fold {name!r}: row {both[0]} is in test and in validation")
        taken = np.union1d(rows, validation[name])
        train = np.setdiff1d(groups, taken)
        folds.append(Fold(name, train, validation[name], np.empty(0, dtype=np.int64), rows))
    return folds
