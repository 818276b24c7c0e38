"""How long deepmd-kit takes to read a frame, with its thread pool and in the calling thread.

    python benchmarks/reading.py

The two ways take turns on the same frames in one process; the ratio is what counts.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from deepmd.utils import data

from deepmd_mft.bridge.reading import InlineExecutor

DATA = Path(__file__).resolve().parents[1] / "examples" / "qm9_gap" / "data"
TYPE_MAP = ["H", "C", "N", "O", "F"]
FRAMES = 200
ROUNDS = 5


def main() -> None:
    """Print milliseconds a frame and their ratio."""
    system = data.DeepmdData(str(DATA / "aux_train" / "20"), type_map=TYPE_MAP)
    for name, ndof, atomic in (("energy", 1, False), ("force", 3, True)):
        system.add(name, ndof, atomic=atomic, must=True)
    executors = {"thread pool a frame": data.ThreadPoolExecutor, "calling thread": InlineExecutor}
    seconds: dict[str, list[float]] = {name: [] for name in executors}
    for _ in range(ROUNDS):
        for name, executor in executors.items():
            data.ThreadPoolExecutor = executor
            start = time.perf_counter()
            for index in range(FRAMES):
                system.get_single_frame(index, num_worker=1)
            seconds[name].append((time.perf_counter() - start) / FRAMES)
    medians = {name: 1000 * float(np.median(values)) for name, values in seconds.items()}
    for name, value in medians.items():
        print(f"{name}: {value:.2f} ms a frame")
    pool, inline = medians.values()
    print(f"ratio: {pool / inline:.1f}")


if __name__ == "__main__":
    main()
