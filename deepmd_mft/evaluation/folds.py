"""Folds of a split: which there are, and which of them a model was trained on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from deepmd_mft.checkpoints.run import TrainingRun
from deepmd_mft.errors import UserError
from deepmd_mft.structures.places import find_set_folders
from deepmd_mft.structures.structure_set import StructureSet, find_sets

if TYPE_CHECKING:
    from pathlib import Path

#: How the test sets of a split are called.
TESTS = ("id", "ood", "test")


def find_folds(folders: list[Path]) -> dict[str, Path]:
    """Return the folds among split folders by name, those in a folder of folds too.

    Returns
    -------
    dict of str to Path
        Empty if the folders are no folds: sets, or splits whose sets have names of their own.

    Raises
    ------
    UserError
        If two folds have one name.
    """
    every = [fold for folder in folders for fold in (_inner(folder) or [folder])]
    names = [name for fold in every for name in _set_names(fold)]
    if len(every) == len(folders) and len(set(names)) == len(names):
        return {}
    found: dict[str, Path] = {}
    for fold in every:
        if fold.resolve().name in found:
            raise UserError(
                f"two folds are called {fold.resolve().name}: {found[fold.resolve().name]} and "
                f"{fold}; rename one"
            )
        found[fold.resolve().name] = fold
    return found


def _inner(folder: Path) -> list[Path]:
    """Return the folds in a folder that has no set of its own."""
    if not folder.is_dir() or _set_names(folder):
        return []
    return [path for path in sorted(folder.iterdir()) if path.is_dir() and _set_names(path)]


def _set_names(folder: Path) -> list[str]:
    """Return the sets of a split by their names: train, val, id_test, ood_test and the like."""
    roles = ("train", "val", *TESTS)
    if not folder.is_dir() or any((folder / name).exists() for name in ("type.raw", "rows.csv")):
        return []
    return [p.name for p in sorted(folder.iterdir()) if p.name.startswith(roles) and _has_data(p)]


def _has_data(folder: Path) -> bool:
    """Whether there is a system: a split leaves the folders of empty parts behind."""
    return any(
        "type.raw" in files or "data.mdb" in files
        for _, _, files in os.walk(folder, followlinks=True)
    )


def parts_of(fold: Path) -> dict[str, list[Path]]:
    """Return the sets of a fold, or of a split, by role: ``train``, ``val`` and ``test``."""
    paths = [fold / name for name in _set_names(fold)]
    roles = {"train": ("train",), "val": ("val",), "test": TESTS}
    return {
        role: [path for path in paths if path.name.startswith(begin)]
        for role, begin in roles.items()
    }


def test_sets(folders: list[Path], chosen: list[str] | None) -> list[StructureSet]:
    """Return the chosen sets; by default of each folder, no folds, the test sets, else all."""
    if chosen:
        return find_sets(folders, chosen)
    names: list[str] = []
    for folder in folders:
        tests = [one for one in _set_names(folder) if one.startswith(TESTS)]
        names += tests or find_set_folders([folder])
    return find_sets(folders, names)


def fold_of_run(run: Path, folds: dict[str, Path]) -> str | None:
    """Return the fold whose structures a run was trained on; None if nothing says so.

    Training data that are not where they were are of the fold that their path names.

    Parameters
    ----------
    run : Path
        The folder in which ``dp train`` ran.
    folds : dict of str to Path
        From :func:`find_folds`.
    """
    try:
        training = TrainingRun(run)
        branch = training.property_branch()  # an auxiliary one may have data of any fold
        places = [place.resolve() for place in training.system_paths(branch, "training_data")]
    except UserError:
        return None
    found = {
        name
        for name, fold in folds.items()
        for place in places
        if fold.resolve() in (place, *place.parents)
    }
    gone = [place for place in places if not place.exists()]
    found = found or {name for name in folds for place in gone if name in place.parts}
    return found.pop() if len(found) == 1 else None


def match_folds(runs: list[Path], folds: dict[str, Path]) -> list[str]:
    """Return the fold of each run: that of its training data, else by order.

    Raises
    ------
    UserError
        If it cannot be told.
    """
    found = [fold_of_run(run, folds) for run in runs]
    for number, (run, fold) in enumerate(zip(runs, found, strict=True)):
        if fold is not None:
            continue
        in_order = list(folds)[number] if len(runs) == len(folds) else None
        if in_order is None or in_order in found:
            raise UserError(
                f"which fold {run} was trained on is not known (its training data lie in none of "
                f"{', '.join(map(str, folds.values()))}); give as many models as folds, in order, "
                "or evaluate one fold after the other"
            )
        found[number] = in_order
    return [str(fold) for fold in found]


def sets_of_fold(name: str, fold: Path, chosen: list[str] | None) -> list[StructureSet]:
    """Return the sets of a fold, called FOLD/SET; the test sets by default."""
    names = chosen or [one for one in _set_names(fold) if one.startswith(TESTS)]
    found = find_sets([fold], names)
    for structures in found:
        structures.name = f"{name}/{structures.name}"
    return found


def without_fold(name: str) -> str:
    """Return the name of a set without its fold."""
    return name.rpartition("/")[2]


def fold_of_set(name: str) -> str:
    """Return the fold of a set called FOLD/SET; empty if it is of none."""
    return name.rpartition("/")[0]
