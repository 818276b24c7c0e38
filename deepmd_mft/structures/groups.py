"""Groups of frames that have one label: conformers of a molecule, terminations of a slab.

``set.*/group.npy`` has one number for each frame, 0 or more; frames of a system with the same
number are a group. A frame without a number (NaN, or a set without the file) is a group of its own.
The label files repeat the label of a group for each of its frames, so that deepmd-kit can read
them.

What a model predicts for a group is the mean over its frames, each weighing the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["check_numbers", "differing", "mean_over", "number_groups"]

#: Labels of a group are equal to this, relative to the largest: they are copies of one number.
EQUAL = 1e-6


def number_groups(numbers: np.ndarray, *places: np.ndarray) -> np.ndarray:
    """Give numbers to groups, from 0 in order of appearance.

    Parameters
    ----------
    numbers : np.ndarray
        As ``group.npy`` has them, shape ``nframes``; NaN for a frame on its own.
    *places : np.ndarray
        In what the numbers count (the system), shape ``nframes``.

    Returns
    -------
    np.ndarray of int
        Shape ``nframes``.
    """
    if np.isnan(numbers).all():
        return np.arange(len(numbers))
    known: dict[tuple[object, ...], int] = {}
    found = np.empty(len(numbers), dtype=np.int64)
    rows = zip(numbers.tolist(), *(place.tolist() for place in places), strict=True)
    for frame, key in enumerate(rows):
        alone = key[0] != key[0]
        found[frame] = known.setdefault(("alone", frame) if alone else key, len(known))
    return found


def mean_over(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the mean of every group, each frame weighing the same.

    Parameters
    ----------
    values : np.ndarray
        First axis ``nframes``.
    groups : np.ndarray of int
        Group of each frame, from 0; shape ``nframes``.

    Returns
    -------
    np.ndarray
        First axis ``ngroups``.
    """
    sizes = np.bincount(groups)
    if len(sizes) == len(groups):
        order = np.argsort(groups)
        return np.asarray(values[order])
    total = np.zeros((len(sizes), *values.shape[1:]))
    np.add.at(total, groups, values)
    return np.asarray(total / sizes.reshape(-1, *(1,) * (values.ndim - 1)))


def check_numbers(numbers: np.ndarray, where: object) -> np.ndarray:
    """Return the numbers of groups, one for each frame.

    Raises
    ------
    UserError
        If they are more than one for each frame, or none that count.
    """
    if numbers.ndim > 1 and numbers.shape[1] != 1:
        raise UserError(
            f"{where} has {numbers.shape[1]} columns; one number for each frame is needed"
        )
    flat = np.asarray(numbers, dtype=np.float64).reshape(-1)
    bad = flat[~np.isnan(flat) & ((flat < 0) | (flat != np.round(flat)) | np.isinf(flat))]
    if len(bad):
        raise UserError(
            f"{where} has {bad[0]:g}; the number of a group is 0, 1, 2, ..., or NaN for a frame on "
            "its own"
        )
    return flat


def differing(values: np.ndarray, groups: np.ndarray) -> Sequence[int]:
    """Return two frames of one group that have different labels; nothing if all groups agree.

    Parameters
    ----------
    values : np.ndarray
        nframes x columns; NaN where missing, which differs from what is there.
    groups : np.ndarray of int
        Shape ``nframes``.
    """
    _, first = np.unique(groups, return_index=True)
    other = values[first[groups]]
    same = np.isclose(values, other, rtol=EQUAL, atol=0.0, equal_nan=True).all(axis=1)
    if same.all():
        return ()
    frame = int(np.argmin(same))
    return int(first[groups[frame]]), frame
