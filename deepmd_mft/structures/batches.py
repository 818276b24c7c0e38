"""Structures of equal size together, as a network takes them without padding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deepmd_mft.errors import UserError
from deepmd_mft.structures.elements import ELEMENTS, numbers_of_types, symbol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deepmd_mft.structures.structure import Structure

__all__ = ["ATOMS_PER_BATCH", "Batch", "make_batches"]

#: Atoms in a batch: large enough to fill a core's vector units, small enough for its caches.
ATOMS_PER_BATCH = 512


@dataclass(frozen=True)
class Batch:
    """Structures with the same number of atoms, all molecules or all crystals.

    Attributes
    ----------
    rows : np.ndarray of int
        Which structures of the set, nf.
    coord : np.ndarray
        nf x nloc x 3, in Angstrom.
    atype : np.ndarray of int
        nf x nloc, indices into a type map; no padding.
    box : np.ndarray or None
        nf x 9, in Angstrom; None for molecules.
    fparam : np.ndarray or None
        nf x dim_fparam, frame parameters; None if the model takes none.
    """

    rows: np.ndarray
    coord: np.ndarray
    atype: np.ndarray
    box: np.ndarray | None
    fparam: np.ndarray | None


def make_batches(
    structures: Sequence[Structure],
    type_map: list[str],
    ids: Sequence[str],
    name: str,
    *,
    fparam: np.ndarray | None = None,
    atoms: int = ATOMS_PER_BATCH,
) -> list[Batch]:
    """Put structures of equal size together, the smallest first.

    Parameters
    ----------
    structures : sequence of Structure
    type_map : list of str
        The model's elements.
    ids : sequence of str
        Name of every structure, for messages.
    name : str
        Name of the set, for messages.
    fparam : np.ndarray, optional
        Frame parameters, nstructures x dim_fparam.
    atoms : int
        Atoms in a batch; a larger structure is a batch of its own.

    Raises
    ------
    UserError
        If a structure has an element that the model does not know.
    """
    lookup = np.full(len(ELEMENTS) + 1, -1)
    numbers = numbers_of_types(type_map)
    lookup[numbers[numbers > 0]] = np.flatnonzero(numbers > 0)
    groups: dict[tuple[int, bool], list[int]] = {}
    for row, structure in enumerate(structures):
        types = lookup[structure.numbers]
        if types.min() < 0:
            absent = sorted({symbol(int(z)) for z in structure.numbers[types < 0]})
            raise UserError(
                f"{name}: structure {ids[row]} has {', '.join(absent)}, which the model's type_map "
                f"lacks ({', '.join(type_map[:20])}); remove it from the set, or train with a "
                "type_map that has it"
            )
        groups.setdefault((len(types), structure.cell is None), []).append(row)
    batches = []
    for (natoms, molecule), rows in sorted(groups.items()):
        step = max(1, atoms // natoms)
        for start in range(0, len(rows), step):
            part = np.array(rows[start : start + step])
            chosen = [structures[row] for row in part]
            batches.append(
                Batch(
                    part,
                    np.stack([one.positions for one in chosen]),
                    lookup[np.stack([one.numbers for one in chosen])],
                    None if molecule else np.stack([one.cell for one in chosen]).reshape(-1, 9),
                    None if fparam is None else fparam[part],
                )
            )
    return batches
