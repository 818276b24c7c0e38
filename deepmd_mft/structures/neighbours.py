"""How many neighbours the atoms of structures have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from deepmd_mft.bridge.neighbours import count_neighbours

if TYPE_CHECKING:
    from collections.abc import Iterable

    from deepmd_mft.structures.structure import Structure

#: Molecules of one size that are looked at together.
TOGETHER = 2000


def most_neighbours(structures: Iterable[Structure], cutoffs: list[float]) -> tuple[int, list[int]]:
    """Return how many structures there are, and the most neighbours of an atom in each cutoff.

    Parameters
    ----------
    structures : iterable of Structure
        Numbers, positions (in Angstrom) and cell (or None) of each.
    cutoffs : list of float
        In Angstrom.

    Returns
    -------
    total : int
    most : list of int
        One for each cutoff.
    """
    most = np.zeros(len(cutoffs), dtype=int)
    total = 0
    waiting: dict[int, list[np.ndarray]] = {}
    for numbers, positions, cell in structures:
        total += 1
        if cell is not None:
            for place, cutoff in enumerate(cutoffs):
                most[place] = max(most[place], count_neighbours(positions, cell, cutoff).max())
            continue
        group = waiting.setdefault(len(numbers), [])
        group.append(positions)
        if len(group) == TOGETHER:
            most = np.maximum(most, _of_molecules(group, cutoffs))
            group.clear()
    for group in filter(None, waiting.values()):
        most = np.maximum(most, _of_molecules(group, cutoffs))
    return total, [int(number) for number in most]


def _of_molecules(positions: list[np.ndarray], cutoffs: list[float]) -> np.ndarray:
    coord = torch.as_tensor(np.stack(positions), dtype=torch.float64)
    distance = torch.cdist(coord, coord)
    # deepmd-kit's list takes an atom at the cutoff, its angles do not: the larger number holds
    return np.array([int((distance <= cutoff).sum(-1).max()) - 1 for cutoff in cutoffs])
