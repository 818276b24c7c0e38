"""Rows that describe the same thing: equal groups, molecules (by SMILES) and structures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from deepmd_mft.structures.molecules import canonical_smiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["duplicate_groups", "group_numbers", "joined_groups", "structure_groups"]

# Two structures are one if all their fingerprints (distances in Angstrom) agree to this.
TOLERANCE = 0.01
# Neighbour distances of each atom that go into its fingerprint.
_SHELL = 40
# Entries of the fingerprint by which candidates are found.
_CANDIDATE_ENTRIES = 8


def duplicate_groups(
    groups: Sequence[str],
    smiles: Sequence[str],
    structures: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray | None]],
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
    structures : iterable
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
    structures: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray | None]],
) -> np.ndarray:
    """Group equal structures: same composition and same distances, to 0.01 A.

    Order of atoms, origin, orientation and choice of (primitive or larger) cell do not
    matter; mirror images count as equal.

    Parameters
    ----------
    structures : iterable
        Atomic numbers, positions and cell (or None) of every row.

    Returns
    -------
    np.ndarray
        Group of every row, shape ``nrows``.
    """
    kinds: dict[tuple[object, ...], list[int]] = {}
    prints = []
    for row, (numbers, coords, cell) in enumerate(structures):
        elements, counts = np.unique(numbers, return_counts=True)
        divisor = np.gcd.reduce(counts) if cell is not None else 1
        formula = (cell is None, *elements.tolist(), *(counts // divisor).tolist())
        kinds.setdefault(formula, []).append(row)
        prints.append(_fingerprint(numbers, elements, coords, cell))
    pairs: list[np.ndarray] = []
    for rows in kinds.values():
        if len(rows) > 1:
            same = _equal_pairs(np.array([prints[row] for row in rows]))
            pairs.append(np.array(rows)[same])
    edges = np.concatenate(pairs) if pairs else np.empty((0, 2), dtype=np.int64)
    n = len(prints)
    graph = coo_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(n, n))
    labels = connected_components(graph, directed=False)[1]
    return group_numbers(labels.tolist())


def _equal_pairs(prints: np.ndarray) -> np.ndarray:
    """Pairs of rows whose fingerprints agree in every entry, shape ``npairs x 2``.

    The entries that vary most name the candidates: a tree of all entries is no faster than
    comparing everything with everything.
    """
    varied = np.argsort(prints.var(axis=0))[-_CANDIDATE_ENTRIES:]
    tree = cKDTree(prints[:, varied])
    pairs = tree.query_pairs(TOLERANCE, p=np.inf, output_type="ndarray")
    same = [np.abs(prints[a] - prints[b]).max() <= TOLERANCE for a, b in pairs]
    return np.asarray(pairs[np.array(same, dtype=bool)])


def _fingerprint(
    numbers: np.ndarray, elements: np.ndarray, coords: np.ndarray, cell: np.ndarray | None
) -> np.ndarray:
    """Mean and spread of the sorted neighbour distances, for each element.

    Returns
    -------
    np.ndarray
        In Angstrom, shape ``2 * nelements * 40 (+ 1)``; the last entry, for crystals, is the
        cube root of the volume per atom.
    """
    nloc = len(numbers)
    if cell is None:
        distances = np.linalg.norm(coords[:, None] - coords[None], axis=2)
        shell = np.sort(distances, axis=1)[:, 1 : _SHELL + 1]
        shell = np.pad(shell, ((0, 0), (0, _SHELL - shell.shape[1])))
        extra = [float(distances.mean())]
    else:
        volume = abs(float(np.linalg.det(cell)))
        shell = _periodic_shell(coords, cell, volume / nloc)
        extra = [(volume / nloc) ** (1.0 / 3.0)]
    parts = []
    for element in elements:
        own = shell[numbers == element]
        parts += [own.mean(axis=0), own.std(axis=0)]
    return np.concatenate([*parts, extra], dtype=np.float32)


def _periodic_shell(coords: np.ndarray, cell: np.ndarray, volume: float) -> np.ndarray:
    """Distances to the 40 nearest atoms, images included, shape ``nloc x 40``."""
    heights = 1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    radius = (3.0 * (_SHELL + 1) * volume / (4.0 * np.pi)) ** (1.0 / 3.0)
    while True:
        repeats = np.ceil(radius / heights).astype(int) + 1
        shifts = np.stack(
            np.meshgrid(*(np.arange(-r, r + 1) for r in repeats), indexing="ij"), axis=-1
        ).reshape(-1, 3)
        images = ((shifts @ cell)[:, None] + coords[None]).reshape(-1, 3)
        inside = (repeats - 1) * heights  # every image this near is in the list
        distances, _ = cKDTree(images).query(coords, k=_SHELL + 1)
        reach = float(distances.max())
        if reach <= inside.min() or len(images) > 500_000:
            return np.asarray(distances[:, 1:])
        radius = max(reach, radius * 1.3)
