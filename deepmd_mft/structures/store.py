"""What every on-disk format of a set offers; one class for each lies beside this file."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from deepmd_mft.errors import UserError
from deepmd_mft.structures.elements import numbers_of_types

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deepmd_mft.structures.rows import Rows
    from deepmd_mft.structures.structure import Structure

__all__ = ["Block", "Store", "numbers_by_type", "read_record"]

#: Positions in the rows that were asked for, and their labels, nrows x width.
Block: TypeAlias = tuple[np.ndarray, np.ndarray]


class Store(ABC):
    """A folder or file of structures and labels.

    Attributes
    ----------
    path : Path
        Where it lies.
    rows : Rows
        Its table.
    record : dict
        ``dataset.json``, as far as there is one.
    """

    path: Path
    rows: Rows
    record: dict[str, Any]

    @property
    @abstractmethod
    def knows_elements(self) -> bool:
        """Whether every type has a name."""

    @abstractmethod
    def structures(
        self, chosen: np.ndarray, type_map: list[str] | None = None
    ) -> Iterator[Structure]:
        """Yield the structures of the rows ``chosen``, in order.

        Parameters
        ----------
        chosen : np.ndarray
            Row numbers.
        type_map : list of str, optional
            Names of the types where the data do not say them.
        """

    @abstractmethod
    def blocks(self, name: str, chosen: np.ndarray) -> Iterator[Block]:
        """Yield a label of the rows ``chosen``, as far as there is one."""

    @abstractmethod
    def label_names(self, row: int) -> list[str]:
        """Return what a row has beside its structure."""

    @abstractmethod
    def checksum(self) -> str:
        """Return the SHA-256 of the content, independent of where it lies."""

    def may_have(self, name: str) -> bool:  # noqa: ARG002
        """Whether it is worth looking for a label; a format in which looking is slow says more."""
        return True

    def write_part(self, chosen: np.ndarray, out: Path) -> None:
        """Write the rows ``chosen`` (ascending) as a set of the same format.

        Parameters
        ----------
        chosen : np.ndarray
            Row numbers.
        out : Path
            An empty folder.
        """
        del chosen, out
        raise UserError(f"{self.path}: parts of such a file are not written; convert it first")

    def _finish_part(
        self, chosen: np.ndarray, out: Path, places: dict[int, tuple[str, int]]
    ) -> None:
        self.rows.write(out / "rows.csv", chosen, places)
        keep = ("format", "kind", "type_map", "reader", "files", "notes", "units")
        record = {key: self.record[key] for key in keep if key in self.record}
        record.update(rows=len(chosen), part_of=str(self.path.resolve()))
        (out / "dataset.json").write_text(json.dumps(record, indent=1) + "\n")


def read_record(folder: Path) -> dict[str, Any]:
    """Read ``dataset.json`` of a set; empty if there is none.

    Raises
    ------
    UserError
        If it is damaged.
    """
    path = folder / "dataset.json"
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        units = dict(record.get("units", {}))
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}); convert the data again") from None
    if not all(isinstance(text, str) for text in units.values()):
        raise UserError(f"{path} is damaged (units are no text); convert the data again")
    return dict(record)


@lru_cache(maxsize=64)
def _table(symbols: tuple[str, ...]) -> np.ndarray:
    return numbers_of_types(symbols)


def numbers_by_type(types: np.ndarray, symbols: list[str], where: str) -> np.ndarray:
    """Return the atomic numbers of atoms given by type.

    Parameters
    ----------
    types : np.ndarray of int
        Shape ``nloc``; no padding.
    symbols : list of str
        Type map.
    where : str
        File and row, for messages.

    Raises
    ------
    UserError
        If a type is beyond the type map, or its name is no element.
    """
    if len(types) and (types.min() < 0 or types.max() >= len(symbols)):
        bad = int(types.min() if types.min() < 0 else types.max())
        raise UserError(
            f"{where} has an atom of type {bad}, but the type map has {len(symbols)} "
            f"({' '.join(symbols[:20])}); mend the types or the type map"
        )
    numbers = _table(tuple(symbols))[types]
    if (numbers < 1).any():
        name = symbols[int(types[np.flatnonzero(numbers < 1)[0]])]
        raise UserError(
            f"{where} has an atom called {name!r}, which is no chemical element; rename it in the "
            "type map, or remove the structure"
        )
    return numbers
