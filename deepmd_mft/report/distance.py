"""How far test structures lie from the training data, by label and by structure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from ase.neighborlist import neighbor_list
from scipy import sparse
from sklearn.neighbors import NearestNeighbors

from deepmd_mft.structures.elements import ELEMENTS
from deepmd_mft.structures.pooling import Pooling
from deepmd_mft.structures.structure_set import StructureSet

if TYPE_CHECKING:
    from deepmd_mft.report.runs import Run

#: Angstrom.
CUTOFF, WIDTH = 5.0, 0.25
BINS = round(CUTOFF / WIDTH) + 1
#: Training structures looked at, drawn at random if there are more.
REFERENCE = 5000
#: Structures in a bin of a curve.
FEWEST = 10


def label_distance(run: Run) -> np.ndarray | None:
    """Return the distance of every test label from the mean training label.

    Returns
    -------
    np.ndarray or None
        One value per row of ``run.predictions``, in standard deviations of the training labels; NaN
        where there is no label. None if the training labels do not vary.
    """
    if not np.isfinite(run.training.std) or not run.training.std:
        return None
    label = run.predictions["label"].to_numpy(dtype=float)
    return np.asarray(np.abs(label - run.training.mean) / run.training.std)


class StructuralDistances:
    """Distances of test structures to the nearest training structure.

    Every structure is described by the histograms of its interatomic distances up to 5 Angstrom,
    one for each pair of elements, an atom each (a radial distribution function that tells elements
    apart). Two structures are as far as these histograms (Euclidean). The unit is the median
    distance of a training structure to its nearest neighbour in training: at 1 a test structure is
    as close to the training set as its own members are.

    The description comes from the structures alone, so the distances of all models agree. What was
    computed is remembered: runs share their sets.
    """

    def __init__(self) -> None:
        self._known: dict[object, sparse.csr_matrix] = {}

    def of(self, run: Run) -> np.ndarray | None:
        """Return a distance for every row of ``run.predictions``.

        Returns
        -------
        np.ndarray or None
            None if the data are not where they were, or two training structures are not there.
        """
        tests = [
            tuple(Path(folder["path"]) for folder in one["folders"])
            for one in run.record["sets"].values()
        ]
        train = tuple(run.training.systems)
        if not train or not all(folder.is_dir() for one in (train, *tests) for folder in one):
            return None
        reference = self._fingerprints(train, run.type_map, most=REFERENCE)
        if reference.shape[0] < 2:
            return None
        near = NearestNeighbors(n_neighbors=2, algorithm="brute").fit(reference)
        unit = float(np.median(near.kneighbors(reference)[0][:, 1]))  # the first is itself
        prints = [self._fingerprints(one, run.type_map) for one in tests]
        distance = np.concatenate([near.kneighbors(one, n_neighbors=1)[0][:, 0] for one in prints])
        if not unit or len(distance) != len(run.predictions):
            return None
        return np.asarray(distance / unit)

    def _fingerprints(
        self, folders: tuple[Path, ...], type_map: tuple[str, ...], most: int | None = None
    ) -> sparse.csr_matrix:
        key = (folders, type_map, most)
        if key not in self._known:
            structures = StructureSet("", list(folders), most=most)
            self._known[key] = fingerprints(structures.with_type_map(list(type_map)))
        return self._known[key]


def fingerprints(structures: StructureSet) -> sparse.csr_matrix:
    """Return the histograms of interatomic distances by pair of elements, an atom each.

    Parameters
    ----------
    structures : StructureSet

    Returns
    -------
    scipy.sparse.csr_matrix
        nframes x (pairs of elements x bins). A distance is shared between the two bins whose
        middles it lies between, so that a small move changes little. Of groups of structures that
        have one label, the mean; ngroups rows.
    """
    groups = Pooling(structures).groups
    sizes = np.bincount(groups)
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for number, structure in enumerate(structures):
        z = structure.numbers
        first, second, distance = neighbor_list("ijd", structure.atoms(), CUTOFF)
        low, high = np.minimum(z[first], z[second]), np.maximum(z[first], z[second])
        pair = (low * (len(ELEMENTS) + 1) + high) * BINS
        position = distance / WIDTH
        lower = np.minimum(position.astype(int), BINS - 2)
        upper_part = np.clip(position - lower, 0.0, 1.0)
        for column, weight in ((lower, 1.0 - upper_part), (lower + 1, upper_part)):
            share = weight / len(z) / sizes[groups[number]]
            parts.append((np.full(len(pair), groups[number]), pair + column, share))
    place, column, weight = (np.concatenate(part) for part in zip(*parts, strict=True))
    shape = (len(sizes), (len(ELEMENTS) + 1) ** 2 * BINS)
    return sparse.csr_matrix((weight, (place, column)), shape=shape)


def by_distance(
    runs: list[Run], distances: list[np.ndarray | None], edges: np.ndarray
) -> pd.DataFrame:
    """Return the RMSE, or of classes the fraction that is wrong, in bins of distance.

    Parameters
    ----------
    runs : list of Run
    distances : list of np.ndarray or None
        For each run, one value a row of its predictions; None leaves the run out.
    edges : np.ndarray
        Of the bins; the last is open.

    Returns
    -------
    pd.DataFrame
        A row for each run and bin with ten structures or more; columns ``rmse`` or ``wrong``.
    """
    rows = []
    for run, distance in zip(runs, distances, strict=True):
        if distance is None:
            continue
        loss, label = run.losses(), run.predictions["label"].to_numpy(dtype=float)
        which = np.searchsorted(edges, distance, side="right") - 1
        for number, low in enumerate(edges):
            inside = (which == number) & np.isfinite(distance) & np.isfinite(label)
            if inside.sum() < FEWEST:
                continue
            mean = float(loss[inside].mean())
            rows.append(
                {
                    "run": run.folder.name,
                    "strategy": run.strategy,
                    "distance_from": low,
                    "distance_to": edges[number + 1] if number + 1 < len(edges) else np.inf,
                    "mean_distance": distance[inside].mean(),
                    "structures": int(inside.sum()),
                    **({"wrong": mean} if run.classes else {"rmse": mean**0.5}),
                }
            )
    return pd.DataFrame(rows)
