"""The five OOD splits of MatBench dielectric beside the published ones (Omee et al. 2024).

    python benchmarks/published_folds.py

Published folds and crystals come from ``../shared/data/matbench`` (or ``DEEPMD_MFT_SHARED``).
"""

from __future__ import annotations

import gzip
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from sklearn.metrics import adjusted_rand_score

from deepmd_mft.data.convert import convert
from deepmd_mft.data.readers import open_source
from deepmd_mft.splits.ofm import orbital_field_matrices
from deepmd_mft.splits.omee import (
    loco,
    sparse_x,
    sparse_y,
    sparse_y_cluster,
    sparsest_by_features,
    sparsest_by_values,
)
from deepmd_mft.structures.structure_set import StructureSet

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("DEEPMD_MFT_SHARED", ROOT.parent / "shared")) / "data" / "matbench"


def published(name: str) -> list[list[int]]:
    """OOD rows of the published folds, each list with its target first."""
    path = SHARED / "folds_dielectric" / f"OFM_{name}_test.json.gz"
    return list(json.loads(gzip.decompress(path.read_bytes())).values())


def inertia(features: np.ndarray, clusters: list[np.ndarray]) -> float:
    """Sum of squared distances to the clusters' centres: what k-means makes small."""
    return float(sum(((features[c] - features[c].mean(axis=0)) ** 2).sum() for c in clusters))


def show_loco(features: np.ndarray, apart: np.ndarray) -> None:
    """Compare the clusters."""
    start = time.perf_counter()
    ours = [fold.ood_test for fold in loco(features, apart)]
    seconds = time.perf_counter() - start
    theirs = [np.array(rows) for rows in published("LOCO")]
    labels = np.empty((2, len(features)), dtype=int)
    for which, clusters in enumerate((ours, theirs)):
        for number, rows in enumerate(clusters):
            labels[which, rows] = number
    print(
        f"LOCO ({seconds:.0f} s): inertia {inertia(features, ours):.0f} here, "
        f"{inertia(features, theirs):.0f} published; adjusted Rand index "
        f"{adjusted_rand_score(*labels):.2f}; sizes {min(map(len, ours))} to "
        f"{max(map(len, ours))} here, {min(map(len, theirs))} to {max(map(len, theirs))} published"
    )


def show_sparse(
    space: str, features: np.ndarray, values: np.ndarray, sparsest: np.ndarray, apart: np.ndarray
) -> None:
    """Compare targets and neighbours of one space."""
    rank = np.empty(len(values), dtype=int)
    rank[sparsest] = np.arange(len(values))
    name = f"Sparse{space.upper()}"
    theirs = np.array([rows[0] for rows in published(f"{name}single")])
    start = time.perf_counter()
    alone = sparse_x(features, apart) if space == "x" else sparse_y(values, apart)
    seconds = time.perf_counter() - start
    ours = np.array([fold.ood_test[0] for fold in alone])
    print(
        f"{name}single ({seconds:.0f} s): density rank of the targets 0 to {rank[ours].max()} "
        f"here; published {rank[theirs].min()} to {rank[theirs].max()}, "
        f"{(rank[theirs] < 500).sum()} of 50 among our 500 sparsest; published rows "
        f"{theirs.min()} to {theirs.max()}"
    )
    clusters = published(f"{name}cluster")
    ordered = 0
    for target, *rows in clusters:
        distance = np.linalg.norm(features - features[target], axis=1)
        distance[target] = np.inf
        ordered += np.argsort(distance, kind="stable")[:10].tolist() == rows
    members = [row for rows in clusters for row in rows]
    if space == "x":
        joined = sparse_x(features, apart, neighbours=10)
    else:
        joined = sparse_y_cluster(values, features, apart)
    mine = np.concatenate([fold.ood_test for fold in joined])
    print(
        f"{name}cluster: {ordered} of 50 published neighbour lists are the ten nearest here, in "
        f"the same order; rows in two clusters: {len(members) - len(set(members))} published, "
        f"{len(mine) - len(set(mine.tolist()))} here"
    )


def main() -> None:
    """Convert, featurise, split and compare."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "dielectric"
        convert(open_source(SHARED / "matbench_dielectric.json.gz"), out, progress=False)
        data = StructureSet.open(out)
        values = data.label("n")
        start = time.perf_counter()
        features = orbital_field_matrices(data, jobs=2)
        print(f"OFM of {len(data):,} crystals: {time.perf_counter() - start:.0f} s")
    apart = np.arange(len(values))
    show_loco(features, apart)
    by_value = sparsest_by_values(values, len(values))
    show_sparse("y", features, values, by_value, apart)
    by_structure, _ = sparsest_by_features(features, len(values))
    show_sparse("x", features, values, by_structure, apart)


if __name__ == "__main__":
    main()
