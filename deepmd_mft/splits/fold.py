"""What all splits share: the fold, and drawing without tearing groups apart."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from deepmd_mft.errors import UserError

__all__ = ["PARTS", "Fold", "amount", "carve", "draw", "generator", "leaks", "members", "whole"]

PARTS = ("train", "val", "id_test", "ood_test")


@dataclass
class Fold:
    """One division of a data set.

    Parameters
    ----------
    name : str
        Name of the fold; empty where a method has only one.
    train, val, id_test, ood_test : np.ndarray
        Row numbers, ascending, no row in two of them.
    """

    name: str
    train: np.ndarray
    val: np.ndarray
    id_test: np.ndarray
    ood_test: np.ndarray

    def parts(self) -> dict[str, np.ndarray]:
        """Return the four arrays by name."""
        return {part: getattr(self, part) for part in PARTS}


def members(groups: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Return the rows whose group is in ``chosen``, ascending."""
    return np.flatnonzero(np.isin(groups, chosen))


def amount(wanted: float, total: int, what: str) -> int:
    """Turn a count, or a fraction below 1, into a count.

    Parameters
    ----------
    wanted : float
        Count or fraction.
    total : int
        How many there are to choose from.
    what : str
        The option, for the message.

    Raises
    ------
    UserError
        If it is neither a count nor a fraction, or not less than ``total``.
    """
    if not math.isfinite(wanted) or wanted < 0 or (wanted >= 1 and wanted != int(wanted)):
        raise UserError(
            f"{what} {wanted:g} is neither a count (0, 1, 2, ...) nor a fraction between 0 and 1"
        )
    number = math.ceil(wanted * total) if wanted < 1 else int(wanted)
    if number and number >= total:
        hint = (
            "it takes them all; give a smaller fraction, or make the other parts smaller (groups "
            "are drawn whole)"
            if wanted < 1
            else "give a smaller number, or a fraction between 0 and 1"
        )
        raise UserError(
            f"{what} = {wanted:g} does not fit: there are {total:,} to choose from; {hint}"
        )
    return number


def whole(number: float, least: int, what: str) -> int:
    """Return a whole number that is at least ``least``; ``what`` is the option that gave it."""
    if not math.isfinite(number) or number != int(number) or number < least:
        raise UserError(f"{what} {number:g} is not a whole number from {least} on")
    return int(number)


def generator(seed: int) -> np.random.Generator:
    """Return the source of randomness of a seed that numpy and scikit-learn both take."""
    if whole(seed, 0, "--seed") >= 2**32:
        raise UserError(f"--seed {seed} is too large; give one below {2**32:,}")
    return np.random.default_rng(seed)


def draw(
    rows: np.ndarray, groups: np.ndarray, wanted: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw whole groups at random until at least ``wanted`` rows are taken.

    Parameters
    ----------
    rows : np.ndarray
        Rows to draw from.
    groups : np.ndarray
        Group of every row of the data set, shape ``nrows``.
    wanted : int
        How many rows.
    rng : np.random.Generator
        Source of randomness.

    Returns
    -------
    drawn, rest : np.ndarray
        Row numbers, ascending.
    """
    present, inverse, sizes = np.unique(groups[rows], return_inverse=True, return_counts=True)
    order = rng.permutation(len(present))
    taken = int(np.searchsorted(np.cumsum(sizes[order]), wanted)) + 1 if wanted else 0
    mask = np.isin(inverse, order[:taken])
    return np.sort(rows[mask]), np.sort(rows[~mask])


def carve(
    name: str,
    ood: np.ndarray,
    groups: np.ndarray,
    *,
    id_test: float,
    val: float,
    rng: np.random.Generator,
) -> Fold:
    """Make a fold of an OOD test set: ID test and validation are drawn from the rest.

    Parameters
    ----------
    name : str
        Name of the fold.
    ood : np.ndarray
        Rows of the OOD test set; the rest of their groups follows them.
    groups : np.ndarray
        Group of every row, shape ``nrows``.
    id_test, val : float
        Count, or fraction of what is left after the OOD test set (and, for ``val``, after
        the ID test set).
    rng : np.random.Generator
        Source of randomness.
    """
    ood = members(groups, groups[ood])
    rest = np.setdiff1d(np.arange(len(groups)), ood)
    if not len(rest):
        raise UserError(f"fold {name or '0'}: nothing is left to train on")
    chosen_id, rest = draw(rest, groups, amount(id_test, len(rest), "--id-test"), rng)
    chosen_val, rest = draw(rest, groups, amount(val, len(rest), "--val"), rng)
    return Fold(name, rest, chosen_val, chosen_id, ood)


def leaks(fold: Fold, groups: np.ndarray) -> dict[str, int]:
    """Count the held-out rows whose group has a row in train too.

    Parameters
    ----------
    fold : Fold
        The division.
    groups : np.ndarray
        Group of every row, shape ``nrows``.

    Returns
    -------
    dict of str to int
        Rows of ``val``, ``id_test`` and ``ood_test``; parts without such rows are left out.
    """
    trained = np.unique(groups[fold.train])
    counts = {
        part: int(np.isin(groups[rows], trained).sum())
        for part, rows in fold.parts().items()
        if part != "train"
    }
    return {part: count for part, count in counts.items() if count}
