"""Every way to divide a set: one entry per method, one per option.

A method is a function ``make(*columns, groups, **options) -> list[Fold]`` in a file of its
family. Its entry in :data:`METHODS` names the columns (methods of
:class:`~deepmd_mft.splits.columns.Columns`) and the options with their defaults; the command
line, its help, its refusals and ``split.json`` all follow from the entry.

How to add a split
------------------
1. Write ``make(*columns, groups, **options)`` in the file of its family in ``splits/``. Rows of one
   group (``groups``, a number for each row) go to one part.
2. List it in :data:`METHODS`, and an option that no other method has in :data:`OPTIONS`. What it
   looks at is a method of :class:`~deepmd_mft.splits.columns.Columns`.
3. Add it to ``tests/splits/test_splits.py``; ``tests/splits/test_leaks.py`` runs over all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepmd_mft.errors import UserError
from deepmd_mft.splits import boom, chemistry, omee, published, random_folds, record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np

    from deepmd_mft.splits.columns import Columns
    from deepmd_mft.splits.fold import Fold

__all__ = ["METHODS", "OPTIONS", "REQUIRED", "Method", "Option", "settle"]

#: Default of an option that has none.
REQUIRED = "required"


@dataclass(frozen=True)
class Option:
    """An option of one or more methods.

    Parameters
    ----------
    flag : str
        On the command line.
    kind : type
        Of its value.
    help : str
        What it is.
    choices : tuple of str
        Values that it may have; any if empty.
    """

    flag: str
    kind: type
    help: str
    choices: tuple[str, ...] = ()


OPTIONS: dict[str, Option] = {
    "target": Option("--target", str, "label that the method looks at"),
    "ood": Option("--ood", float, "size of the OOD set: a count, or a fraction below 1"),
    "elements": Option("--elements", str, "symbols, separated by commas, for example F,Cl"),
    "larger_than": Option("--larger-than", int, "OOD are structures of more atoms"),
    "folds": Option("--folds", int, "number of folds"),
    "clusters": Option("--clusters", int, "number of clusters, and of folds"),
    "candidates": Option("--candidates", int, "how many sparsest samples"),
    "neighbours": Option("--neighbours", int, "neighbours that join each target"),
    "test_file": Option("--test-file", Path, "JSON of fold -> rows of the OOD test set"),
    "val_file": Option("--val-file", Path, "JSON of fold -> validation rows, if published"),
    "split_json": Option("--from", Path, "the split.json"),
    "cache": Option("--cache", Path, "folder of features (default ~/.cache/deepmd_mft)"),
    "id_test": Option("--id-test", float, "size of the ID test set: count or fraction of the rest"),
    "val": Option("--val", float, "size of the validation set: count or fraction of the rest"),
    "seed": Option("--seed", int, "seed of every random draw"),
    "duplicates": Option(
        "--duplicates",
        str,
        "keep equal groups, molecules and structures on one side, or do not look",
        ("together", "ignore"),
    ),
}


@dataclass(frozen=True)
class Method:
    """A way to divide a set.

    Parameters
    ----------
    summary : str
        One line for the help.
    make : callable
        ``make(*columns, groups, **options)`` returns the folds.
    needs : tuple of str
        Columns that it looks at.
    options : dict
        Options that ``make`` takes, with their defaults; REQUIRED where there is none, None
        where leaving the option out means something of its own.
    instead : dict
        Options that take the place of others when they are given.
    keeps : bool
        Whether its test sets are given, so that duplicates can only be counted, not moved.
    """

    summary: str
    make: Callable[..., list[Fold]]
    needs: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    instead: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    keeps: bool = False

    @property
    def arguments(self) -> dict[str, Any]:
        """All options that may be given, with their defaults, in the order of ``split.json``."""
        implied = {"target": "target", "features": "cache"}
        columns = {implied[need]: None for need in self.needs if need in implied}
        return {**columns, **self.options, "duplicates": "together"}

    def folds(self, columns: Columns, groups: np.ndarray, options: dict[str, Any]) -> list[Fold]:
        """Divide.

        Parameters
        ----------
        columns : Columns
            What there is to look at.
        groups : np.ndarray
            Group of every row, shape ``nrows``.
        options : dict
            From :func:`settle`.
        """
        looked_at = [getattr(columns, need)() for need in self.needs]
        own = {name: value for name, value in options.items() if name in self.options}
        return self.make(*looked_at, groups, **own)


def _sizes(ood: float | None = None, **others: float) -> dict[str, Any]:
    first = {} if ood is None else {"ood": ood}
    return {**first, "id_test": 0.05, "val": 0.05, "seed": 0, **others}


#: As Omee et al. have them: no ID test set, a fifth for validation.
_OMEE = {"id_test": 0, "val": 0.2, "seed": 0}
_SPARSE = {"clusters": 50, "candidates": 500}

METHODS: dict[str, Method] = {
    "boom": Method(
        "lowest kernel density of the target out",
        boom.boom,
        needs=("target",),
        options=_sizes(ood=10_000, seed=42),
    ),
    "loco": Method(
        "crystals: each k-means cluster of orbital-field matrices out once",
        omee.loco,
        needs=("features",),
        options={"clusters": 50, **_OMEE},
    ),
    "sparse-x-single": Method(
        "crystals: isolated structures, one per fold",
        omee.sparse_x,
        needs=("features",),
        options={**_SPARSE, **_OMEE},
    ),
    "sparse-x-cluster": Method(
        "crystals: isolated structures with their neighbours",
        omee.sparse_x,
        needs=("features",),
        options={**_SPARSE, "neighbours": 10, **_OMEE},
    ),
    "sparse-y-single": Method(
        "isolated target values, one per fold",
        omee.sparse_y,
        needs=("target",),
        options={**_SPARSE, **_OMEE},
    ),
    "sparse-y-cluster": Method(
        "crystals: isolated target values with structural neighbours",
        omee.sparse_y_cluster,
        needs=("target", "features"),
        options={**_SPARSE, "neighbours": 10, **_OMEE},
    ),
    "random": Method(
        "at random; no OOD set",
        random_folds.random_split,
        options={"id_test": 0.1, "val": 0.1, "seed": 0},
    ),
    "kfold": Method(
        "random folds, each the ID test set once; no OOD set",
        random_folds.kfold,
        options={"folds": 5, "val": 0.1, "seed": 0},
    ),
    "matbench": Method(
        "MatBench's five official folds; no OOD set",
        random_folds.matbench,
        needs=("target", "source_rows"),
        options={"val": 0.1, "seed": 0},
        keeps=True,
    ),
    "scaffold": Method(
        "molecules: rare Bemis-Murcko scaffolds out",
        chemistry.scaffold,
        needs=("smiles",),
        options=_sizes(ood=0.1),
    ),
    "element-out": Method(
        "every structure with one of --elements out",
        chemistry.element_out,
        needs=("numbers",),
        options={"elements": REQUIRED, **_sizes()},
    ),
    "size-out": Method(
        "the largest structures out",
        chemistry.size_out,
        needs=("natoms",),
        options={"larger_than": None, **_sizes(ood=0.1)},
        instead={"larger_than": ("ood",)},
    ),
    "from-file": Method(
        "published folds",
        published.from_file,
        needs=("source_rows",),
        options={"test_file": REQUIRED, "val_file": None, "val": 0.2, "seed": 0},
        instead={"val_file": ("val", "seed")},
        keeps=True,
    ),
    "rebuild": Method(
        "exactly as a split.json says",
        record.rebuild,
        needs=("data",),
        options={"split_json": REQUIRED},
        keeps=True,
    ),
}


def settle(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """Complete the options of a method with its defaults.

    Parameters
    ----------
    name : str
        Of the method.
    given : dict
        Options that the user gave.

    Returns
    -------
    dict
        Those that the method uses; what an option takes the place of is left out.

    Raises
    ------
    UserError
        If the method does not use an option that was given, or lacks one.
    """
    if name not in METHODS:
        raise UserError(f"no method {name!r}; there are {', '.join(METHODS)}")
    method = METHODS[name]
    for option in given:
        if option not in method.arguments:
            users = [other for other in METHODS if option in METHODS[other].arguments]
            raise UserError(
                f"{name} does not use {OPTIONS[option].flag}, which is for {', '.join(users)}; "
                "leave it out"
            )
    options = method.arguments | given
    for option, others in method.instead.items():
        for other in others if option in given else ():
            if other in given:
                raise UserError(
                    f"{name} does not use {OPTIONS[other].flag} with {OPTIONS[option].flag}, "
                    "which takes its place; leave one out"
                )
            del options[other]
    for option, value in options.items():
        if value is REQUIRED:
            raise UserError(f"{name} needs {OPTIONS[option].flag}: {OPTIONS[option].help}")
    return options
