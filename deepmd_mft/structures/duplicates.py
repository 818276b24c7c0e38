"""Rows that describe the same thing: equal groups, molecules (by SMILES) and structures."""

from __future__ import annotations

from itertools import compress
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from deepmd_mft.structures.fingerprints import (
    composition,
    content_hash,
    fingerprint,
    short_fingerprint,
)
from deepmd_mft.structures.molecules import canonical_smiles

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from deepmd_mft.structures.structure import Structure
    from deepmd_mft.structures.structure_set import StructureSet

__all__ = ["duplicate_groups", "group_numbers", "joined_groups", "structure_groups"]

# Two structures are one if all their fingerprints (distances in Angstrom) agree to this.
TOLERANCE = 0.01
# Entries of the fingerprint by which candidates are found.
_CANDIDATE_ENTRIES = 8


def duplicate_groups(
    groups: Sequence[str],
    smiles: Sequence[str],
    structures: Collection[Structure] | StructureSet,
    *,
    jobs: int = 1,
    tell: Callable[[str], None] = lambda _: None,
) -> np.ndarray:
    """Find the rows that must stay on one side of a split.

    Rows belong together if they have the same group, or the same molecule (SMILES in any
    spelling, isotopes aside), or the same structure; and so do the rows that each of these
    belongs together with.

    Parameters
    ----------
    groups, smiles : sequence of str
        Of every row; empty where there is none.
    structures : collection of Structure
        Numbers, positions and cell of every row.
    jobs : int
        Processes for the SMILES.
    tell : callable
        Takes a remark on what could not be compared (:func:`canonical_smiles`).

    Returns
    -------
    np.ndarray
        Group of every row, shape ``nrows``, numbered in order of appearance.
    """
    spelled = canonical_smiles(smiles, jobs=jobs, tell=tell)
    return joined_groups(
        group_numbers(groups), group_numbers(spelled), structure_groups(structures)
    )


def group_numbers(labels: Sequence[str | int]) -> np.ndarray:
    """Give numbers to the groups in order of appearance; an empty label is a group of its own.

    Parameters
    ----------
    labels : sequence
        One per row.

    Returns
    -------
    np.ndarray
        Group of every row, shape ``nrows``, from 0.
    """
    numbers: dict[object, int] = {}
    out = np.empty(len(labels), dtype=np.int64)
    for row, label in enumerate(labels):
        key: object = ("row", row) if label == "" else label
        out[row] = numbers.setdefault(key, len(numbers))
    return out


def joined_groups(*labels: np.ndarray) -> np.ndarray:
    """Join rows that share a label in any of several ways of labelling, and so on through them.

    Parameters
    ----------
    *labels : np.ndarray
        Each of shape ``nrows``.

    Returns
    -------
    np.ndarray
        Group of every row, shape ``nrows``, numbered in order of appearance.
    """
    n = len(labels[0])
    firsts = []
    for one in labels:
        _, first, place = np.unique(one, return_index=True, return_inverse=True)
        firsts.append(first[place])
    rows = np.tile(np.arange(n), len(labels))
    edges = (np.ones(len(rows), dtype=bool), (np.concatenate(firsts), rows))
    found = connected_components(coo_array(edges, shape=(n, n)), directed=False)[1]
    _, first, place = np.unique(found, return_index=True, return_inverse=True)
    return np.asarray(np.argsort(np.argsort(first))[place])


def structure_groups(
    structures: Collection[Structure] | StructureSet,
) -> np.ndarray:
    """Group equal structures: same composition and same distances, to 0.01 A.

    Order of atoms, origin, orientation and choice of (primitive or larger) cell do not
    matter; mirror images count as equal. What is equal to a third is equal.

    The structures are gone through twice: short fingerprints of all leave few candidates, of
    which whole fingerprints are made, so that memory is 0.3 GB for a million structures.

    Parameters
    ----------
    structures : collection of Structure
        Atomic numbers, positions and cell (or None) of every row.

    Returns
    -------
    np.ndarray
        Group of every row, shape ``nrows``.
    """
    first = np.empty(len(structures), dtype=np.int64)  # row with the same arrays
    seen: dict[int, int] = {}
    alike = _Prints()
    for row, structure in enumerate(structures):
        first[row] = seen.setdefault(content_hash(structure), row)
        if first[row] == row:
            kind = composition(structure[0], periodic=structure[2] is not None)
            alike.add(kind, row, short_fingerprint(fingerprint(*structure)))
    candidates = {row: rows[0] for rows in alike.clusters() if len(rows) > 1 for row in rows}
    equal = _Prints()
    wanted = np.zeros(len(structures), dtype=bool)
    wanted[list(candidates)] = True
    for row, structure in zip(
        np.flatnonzero(wanted).tolist(), compress(structures, wanted), strict=True
    ):
        equal.add(candidates[row], row, fingerprint(*structure))
    lowest = np.arange(len(structures))
    for rows in equal.clusters():
        lowest[rows] = rows[0]
    return group_numbers(lowest[first].tolist())


class _Prints:
    """Fingerprints of rows, by what the rows must have in common."""

    def __init__(self) -> None:
        self._kinds: dict[object, tuple[list[int], list[np.ndarray]]] = {}

    def add(self, kind: object, row: int, values: np.ndarray) -> None:
        """Take the fingerprint of a row."""
        rows, prints = self._kinds.setdefault(kind, ([], []))
        rows.append(row)
        prints.append(values)

    def clusters(self) -> Iterator[list[int]]:
        """Yield ascending rows that belong together, one list for each cluster."""
        for rows, prints in self._kinds.values():
            found: dict[int, list[int]] = {}
            for row, label in zip(rows, _clusters(np.array(prints)).tolist(), strict=True):
                found.setdefault(label, []).append(row)
            yield from found.values()


def _clusters(points: np.ndarray) -> np.ndarray:
    """Return the clusters of points that agree in every entry, to the tolerance.

    A cluster grows from its first point. What is taken is not looked at again, so that many equal
    points cost no more than many different ones.

    Parameters
    ----------
    points : np.ndarray
        npoints x nentries, in Angstrom.

    Returns
    -------
    np.ndarray of int
        The first point of each point's cluster; shape ``npoints``.
    """
    varied = np.argsort(points.var(axis=0))[-_CANDIDATE_ENTRIES:]  # a tree of all is no faster
    short = points[:, varied]
    cluster = np.full(len(points), -1)
    index, tree, wasted = np.arange(len(points)), cKDTree(short), 0
    for first in range(len(points)):
        if cluster[first] >= 0:
            continue
        cluster[first] = first
        grown = [first]
        while grown and len(index):
            point = grown.pop()
            near = index[tree.query_ball_point(short[point], 1.001 * TOLERANCE, p=np.inf)]
            free = near[cluster[near] < 0]
            wasted += len(near) - len(free)
            free = free[np.abs(points[free] - points[point]).max(axis=1, initial=0.0) <= TOLERANCE]
            cluster[free] = first
            grown += free.tolist()
            if wasted > len(index):  # most of the tree is taken: a new one pays
                index, wasted = np.flatnonzero(cluster < 0), 0
                tree = cKDTree(short[index]) if len(index) else tree
    return cluster
