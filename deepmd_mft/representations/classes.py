"""Classes of atoms and of edges, and samples of them (MFT, arXiv 2601.08486, D.1).

An atom's class is its element and its number of covalent neighbours; an edge's class is the
elements of its ends and whether it is near (a covalent bond), middle or far. Covalent means: not
farther than 1.15 times the sum of the covalent radii (Cordero et al. 2008, as ase has them).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deepmd_mft.errors import UserError
from deepmd_mft.structures.elements import ELEMENTS, atomic_number, symbol

if TYPE_CHECKING:
    from deepmd_mft.structures.structure import Structure
    from deepmd_mft.structures.structure_set import StructureSet

__all__ = [
    "Edges",
    "Windows",
    "atom_classes",
    "covalent_neighbours",
    "find_edges",
    "sample_classes",
]

COVALENT = 1.15


@dataclass(frozen=True)
class Windows:
    """Distances of the edge classes.

    Parameters
    ----------
    middle, far : tuple of float
        Smallest and largest distance in Angstrom. The paper's: 3 to 4 (not bonded, but within the
        angular cutoff of DPA-3.1-3M) and 5 to 6 (beyond it).
    """

    middle: tuple[float, float] = (3.0, 4.0)
    far: tuple[float, float] = (5.0, 6.0)


@dataclass(frozen=True)
class Edges:
    """Directed edges: a centre of the first element of the pair, a neighbour of the second.

    Parameters
    ----------
    structure, centre : np.ndarray
        Number of the structure in its set and of the centre in the structure, shape ``nedges``.
    vector : np.ndarray
        From the centre to the neighbour, in Angstrom, shape ``nedges x 3``.
    labels : np.ndarray of str
        For instance ``C-H near``; shape ``nedges``.
    """

    structure: np.ndarray
    centre: np.ndarray
    vector: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray) -> Edges:
        """Return some of the edges."""
        return Edges(self.structure[rows], self.centre[rows], self.vector[rows], self.labels[rows])


def covalent_neighbours(structure: Structure) -> np.ndarray:
    """Count the covalent neighbours of every atom.

    Parameters
    ----------
    structure : Structure

    Returns
    -------
    np.ndarray of int
        Shape ``nloc``.
    """
    from ase.data import covalent_radii  # noqa: PLC0415
    from ase.neighborlist import neighbor_list  # noqa: PLC0415

    radii = COVALENT * covalent_radii[structure.numbers]
    centres = neighbor_list("i", structure.atoms(), list(radii))
    return np.bincount(centres, minlength=len(structure.numbers))


def atom_classes(structures: StructureSet) -> np.ndarray:
    """Name the class of every atom of a set.

    Returns
    -------
    np.ndarray of str
        For instance ``C(4)`` for a carbon atom with four covalent neighbours; shape ``natoms``.
    """
    labels: list[str] = []
    for structure in structures.structures:
        counts = covalent_neighbours(structure)
        labels += [f"{symbol(z)}({n})" for z, n in zip(structure.numbers, counts, strict=True)]
    return np.array(labels)


def parse_pair(text: str) -> tuple[str, str]:
    """Split ``C-H`` into its two elements."""
    first, _, second = text.partition("-")
    for name in (first, second):
        if name not in ELEMENTS:
            raise UserError(f"pair '{text}': '{name}' is no element; write it like C-H")
    return first, second


def find_edges(structures: StructureSet, pairs: list[str], windows: Windows) -> Edges:
    """Find all edges of the wanted pairs of elements and distances.

    Parameters
    ----------
    structures : StructureSet
    pairs : list of str
        Like ``C-H``: carbon is the centre.
    windows : Windows
        Middle and far distances; near are covalent bonds.

    Returns
    -------
    Edges
        In the order of the structures.

    Raises
    ------
    UserError
        If a pair has no edge at all in the set.
    """
    from ase.data import covalent_radii  # noqa: PLC0415
    from ase.neighborlist import neighbor_list  # noqa: PLC0415

    parts: list[Edges] = []
    for pair in pairs:
        first, second = (atomic_number(symbol) for symbol in parse_pair(pair))
        bond = COVALENT * (covalent_radii[first] + covalent_radii[second])
        reach = max(bond, windows.middle[1], windows.far[1])
        found = 0
        for number, structure in enumerate(structures.structures):
            if first not in structure.numbers or second not in structure.numbers:
                continue
            centre, distance, vector = neighbor_list(
                "idD", structure.atoms(), {(first, second): reach}
            )
            kind = np.select(
                [
                    distance < bond,
                    _within(distance, windows.middle),
                    _within(distance, windows.far),
                ],
                ["near", "middle", "far"],
                "",
            )
            keep = (kind != "") & (structure.numbers[centre] == first)
            labels = np.array([f"{pair} {k}" for k in kind[keep]], dtype=f"U{len(pair) + 7}")
            parts.append(Edges(np.full(keep.sum(), number), centre[keep], vector[keep], labels))
            found += int(keep.sum())
        if not found:
            raise UserError(
                f"set {structures.name} has no {pair} pair at the distances asked for; choose "
                "other --pairs"
            )
    return Edges(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("structure", "centre", "vector", "labels")
        )
    )


def _within(distance: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    return (distance >= window[0]) & (distance <= window[1])


def sample_classes(
    labels: np.ndarray, *, per_class: int = 2000, least: int = 20, seed: int = 0
) -> tuple[np.ndarray, dict[str, int]]:
    """Draw the same number from every class, or all where there are fewer.

    Parameters
    ----------
    labels : np.ndarray of str
        Class of every atom or edge.
    per_class : int
        At most so many of a class (the paper: 2000).
    least : int
        Classes with fewer are left out: their spread would be noise.
    seed : int
        Seed of the draw.

    Returns
    -------
    chosen : np.ndarray of int
        Ascending positions in ``labels``.
    left_out : dict of str to int
        Classes with too few members, and how many they have.

    Raises
    ------
    UserError
        If fewer than two classes remain.
    """
    rng = np.random.default_rng(seed)
    chosen, left_out = [], {}
    for name in sorted(set(labels.tolist())):
        members = np.flatnonzero(labels == name)
        if len(members) < least:
            left_out[name] = len(members)
            continue
        chosen.append(rng.permutation(members)[:per_class])
    if len(chosen) < 2:
        raise UserError(
            f"only {len(chosen)} class(es) with at least {least} members, so there are no clusters "
            f"to compare (left out: {left_out or 'none'}); give more structures or a smaller "
            "--least"
        )
    return np.sort(np.concatenate(chosen)), left_out
