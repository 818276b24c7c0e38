"""Time and memory of looking for duplicates: many equal, noisy, different and named rows.

Run each in a process of its own: ``python benchmarks/duplicates.py``.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.transform import Rotation

from deepmd_mft.structures.duplicates import group_numbers, joined_groups, structure_groups
from deepmd_mft.structures.structure import Structure

if TYPE_CHECKING:
    from collections.abc import Iterator

NATOMS = 18


class Molecules:
    """Molecules made as they are asked for, in the same way each time.

    Parameters
    ----------
    rows : int
        How many.
    different : int
        Of how many structures they are turned copies.
    noise : float
        Of every coordinate, in Angstrom.
    """

    def __init__(self, rows: int, different: int, noise: float = 0.0) -> None:
        self.rows, self.different, self.noise = rows, different, noise
        self.numbers = np.repeat([1, 6, 8], [8, 8, 2])

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Iterator[Structure]:
        turns = Rotation.random(64, random_state=0).as_matrix()
        for row in range(self.rows):
            coords = 2 * np.random.default_rng(row % self.different).normal(size=(NATOMS, 3))
            if self.noise:
                rng = np.random.default_rng([1, row])
                coords = coords + self.noise * rng.normal(size=coords.shape)
            yield Structure(self.numbers, coords @ turns[row % 64])


CASES = {
    "2,000 equal": (2_000, 1, 1e-6),
    "12,000 equal": (12_000, 1, 1e-6),
    "12,000 equal, noise of 0.002 A": (12_000, 1, 2e-3),
    "12,000 different": (12_000, 12_000, 0.0),
    "100,000, each twice": (100_000, 50_000, 1e-6),
}


def measure(name: str) -> dict[str, float]:
    """Return groups, CPU seconds and peak memory of one case."""
    start = time.process_time()
    if name == "names":
        rows = 1_000_000
        names = [f"C{i % 400_000}" for i in range(rows)]
        others = [f"g{i // 3}" if i % 2 else "" for i in range(rows)]
        groups = joined_groups(group_numbers(names), group_numbers(others))
    else:
        groups = structure_groups(Molecules(*CASES[name]))
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    seconds = time.process_time() - start
    return {"groups": int(groups.max()) + 1, "seconds": seconds, "gigabytes": gigabytes}


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
        sys.exit()
    for case in ("names", *CASES):
        command = [sys.executable, __file__, case]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found = json.loads(done.stdout)
        print(f"{case}: " + ", ".join(f"{key} {value:.4g}" for key, value in found.items()))
