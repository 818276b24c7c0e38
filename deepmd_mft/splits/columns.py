"""What a method may look at of a data set, read when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deepmd_mft.errors import UserError
from deepmd_mft.files.cache import cache_home

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import numpy as np

    from deepmd_mft.structures.structure_set import StructureSet

__all__ = ["Columns"]


class Columns:
    """One entry per row; a method in the registry names those that it needs.

    Parameters
    ----------
    dataset : StructureSet
        The set that is divided.
    target : str, optional
        Label of the methods that look at one.
    jobs : int
        Processes for the features.
    cache : Path, optional
        Folder of finished features; ``~/.cache/deepmd_mft`` by default.
    tell : callable
        Takes remarks about long work and what stands in its way.
    progress : bool
        Show progress bars.
    """

    def __init__(
        self,
        dataset: StructureSet,
        *,
        target: str | None = None,
        jobs: int = 1,
        cache: Path | None = None,
        tell: Callable[[str], None] = lambda _: None,
        progress: bool = False,
    ) -> None:
        self._data = dataset
        self._target = target
        self._jobs = jobs
        self._cache = cache
        self._tell = tell
        self._progress = progress

    def data(self) -> StructureSet:
        """Return the set itself."""
        return self._data

    def target(self) -> np.ndarray:
        """Return the target of every row, shape ``nrows``."""
        if not self._target:
            known = ", ".join(self._data.units) or "no dataset.json that lists its labels"
            raise UserError(f"this method needs --target; the set has {known}")
        return self._data.label(self._target)

    def features(self) -> np.ndarray:
        """Return orbital-field matrices, shape ``nrows x 1024``."""
        from deepmd_mft.splits.ofm import orbital_field_matrices  # noqa: PLC0415

        return orbital_field_matrices(
            self._data,
            names=self._data.rows.ids,
            jobs=self._jobs,
            cache=self._cache or cache_home(),
            tell=self._tell,
            progress=self._progress,
        )

    def smiles(self) -> list[str]:
        """Return the SMILES of every row, empty where there is none."""
        return self._data.rows.smiles

    def numbers(self) -> Iterator[np.ndarray]:
        """Yield the atomic numbers of every row."""
        return (numbers for numbers, _, _ in self._data)

    def natoms(self) -> np.ndarray:
        """Return the number of atoms of every row, shape ``nrows``."""
        return self._data.natoms

    def source_rows(self) -> np.ndarray:
        """Return the row of the source that each row was, shape ``nrows``.

        Raises
        ------
        UserError
            If nothing says it: systems without a table may hold the rows in any order.
        """
        rows = self._data.rows
        if rows.counted and len(set(rows.systems)) > 1:
            raise UserError(
                f"{self._data.path} has several systems and no rows.csv: which row of the source "
                "each structure was is not known; convert the source with dp-mft convert"
            )
        return rows.source_rows
