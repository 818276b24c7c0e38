"""What every teacher offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deepmd_mft.structures.structure import Structure

__all__ = ["REASON", "Teacher", "collect"]

#: Among the labels of a teacher: why a structure has none; empty if it has.
REASON = "reason"


class Teacher(ABC):
    """Something that labels structures.

    Attributes
    ----------
    name : str
        What its folder is called.
    units : dict of str to str
        Unit of every property that it gives beside energy, force and virial (eV, eV/Angstrom, eV).
    record : dict
        What identifies it, for ``dataset.json``: equal records, equal labels.
    alone : bool
        Whether it takes one structure after the other, so that processes are worth it.
    elements : list of str or None
        Symbols of all that it knows; None if it says so structure by structure.
    piece : int
        How many structures are labelled before their labels are kept.
    """

    name: str
    units: dict[str, str]
    record: dict[str, Any]
    alone: bool = True
    elements: list[str] | None = None
    piece: int = 100

    @abstractmethod
    def label(self, structures: Sequence[Structure], charges: np.ndarray) -> dict[str, np.ndarray]:
        """Label structures.

        Parameters
        ----------
        structures : sequence of Structure
        charges : np.ndarray
            Total charge of each in elementary charges, nframes.

        Returns
        -------
        dict of str to np.ndarray
            ``energy`` (nframes, eV), ``force`` (natoms x 3, the atoms of all structures, eV/A),
            ``virial`` (nframes x 9, eV, NaN for molecules), properties (nframes) and ``reason``
            (nframes, text): why a structure has no labels.
        """


def collect(structures: Sequence[Structure], found: list[dict[str, Any] | str]) -> dict[str, Any]:
    """Put labels of single structures together; a text is the reason why there are none."""
    sizes = [len(one.numbers) for one in structures]
    names = {name for one in found if isinstance(one, dict) for name in one}
    names |= {"energy", "force", "virial"}
    joined: dict[str, Any] = {}
    for name in sorted(names - {"force", "virial"}):
        joined[name] = np.array([_of(one, name, np.nan) for one in found], dtype=np.float64)
    forces = [
        _of(one, "force", np.full((n, 3), np.nan)) for one, n in zip(found, sizes, strict=True)
    ]
    joined["force"] = np.concatenate(forces)
    joined["virial"] = np.array([_of(one, "virial", np.full(9, np.nan)) for one in found])
    joined[REASON] = np.array([one if isinstance(one, str) else "" for one in found])
    return joined


def _of(labels: dict[str, Any] | str, name: str, absent: Any) -> Any:
    return labels.get(name, absent) if isinstance(labels, dict) else absent
