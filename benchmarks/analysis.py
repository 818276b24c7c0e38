"""Cost of the analysis: exact Wasserstein distance, and embeddings beside deepmd-kit's own.

    OMP_NUM_THREADS=1 python benchmarks/analysis.py

Bounds: 5000 x 5000 points in 128 dimensions under 60 s and 1 GB (beyond the imports) on two cores;
embeddings, with all layers and edges, in at most 1.3 times the time that deepmd-kit takes for the
descriptor of the same molecules; 100,000 atoms in under 2 GB. Each measurement runs in a process of
its own, so that its peak memory is its own; times are processor times, because others use the
machine too.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "examples" / "qm9_gap" / "data" / "ood_test"
CHECKPOINT = ROOT / "examples" / "qm9_gap" / "pretrained" / "model.pt"
REPEATS = 5


def points() -> tuple[np.ndarray, np.ndarray]:
    """Return 5000 x 128 points and the same, stretched and blurred, as fine-tuning moves them."""
    rng = np.random.default_rng(0)
    centres = 4 * rng.normal(size=(12, 128))
    first = centres[rng.integers(12, size=5000)] + rng.normal(size=(5000, 128))
    return first, 1.1 * first + 0.3 * rng.normal(size=first.shape)


def peak() -> float:
    """Return the peak memory of this process in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def measure_wasserstein() -> dict[str, float]:
    """Time one exact distance."""
    import ot  # noqa: F401, PLC0415  (brings torch: its memory is there in any case)

    from deepmd_mft.representations.drift import wasserstein  # noqa: PLC0415

    first, second = points()
    before, start = peak(), time.process_time()
    value = wasserstein(first, second)
    seconds = time.process_time() - start
    return {"distance": value, "seconds": seconds, "gigabytes": peak(), "imports": before}


def measure_embedding() -> dict[str, float]:
    """Time embeddings with layers and edges, and deepmd-kit's descriptor, in turn."""
    from deepmd.infer import DeepPot  # noqa: PLC0415

    from deepmd_mft.representations.backbone import load_checkpoint  # noqa: PLC0415
    from deepmd_mft.representations.classes import Windows, find_edges  # noqa: PLC0415
    from deepmd_mft.representations.embeddings import embed  # noqa: PLC0415
    from deepmd_mft.structures.structure_set import StructureSet  # noqa: PLC0415

    every = StructureSet("ood", [DATA])
    size = int(np.bincount(every.natoms).argmax())  # deepmd-kit takes frames of one size
    alike = [s for s in every.structures if len(s.numbers) == size]
    structures = StructureSet.of("ood", alike)
    backbone = load_checkpoint("pretrained", CHECKPOINT)
    edges = find_edges(structures, ["C-H", "C-O"], Windows((2.0, 3.0), (3.5, 4.5)))
    atoms = np.arange(structures.natoms.sum())
    model = DeepPot(str(CHECKPOINT), head=backbone.record["branch"], auto_batch_size=1024)
    coords = np.stack([s.positions for s in alike])
    index = {symbol: i for i, symbol in enumerate(model.get_type_map())}
    numbers = {1: "H", 6: "C", 7: "N", 8: "O", 9: "F"}
    types = np.array([[index[numbers[z]] for z in s.numbers] for s in alike])

    def ours() -> None:
        embed(backbone, structures, layer_atoms=atoms, edges=edges)

    def plain() -> None:
        model.eval_descriptor(coords, None, types, mixed_type=True)

    times: dict[Any, list[float]] = {ours: [], plain: []}
    for call in (ours, plain) * (REPEATS + 1):
        start = time.process_time()
        call()
        times[call].append(time.process_time() - start)
    mine, deepmd = (statistics.median(times[call][1:]) for call in (ours, plain))
    ratio = statistics.median(a / b for a, b in zip(times[ours][1:], times[plain][1:], strict=True))
    return {"molecules": len(alike), "embed": mine, "eval_descriptor": deepmd, "ratio": ratio}


def measure_memory() -> dict[str, float]:
    """Embed 100,000 atoms, layers and all."""
    from deepmd_mft.representations.backbone import load_checkpoint  # noqa: PLC0415
    from deepmd_mft.representations.embeddings import embed  # noqa: PLC0415
    from deepmd_mft.structures.structure_set import StructureSet  # noqa: PLC0415

    backbone = load_checkpoint("pretrained", CHECKPOINT)
    before = peak()
    every = StructureSet("ood", [DATA])
    copies = -(-100_000 // int(every.natoms.sum()))
    structures = StructureSet.of("ood", every.structures * copies)
    start = time.process_time()
    embed(backbone, structures, layer_atoms=np.arange(structures.natoms.sum()))
    seconds = time.process_time() - start
    atoms = int(structures.natoms.sum())
    return {"atoms": atoms, "seconds": seconds, "gigabytes": peak(), "imports": before}


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(globals()[f"measure_{sys.argv[1]}"]()))
        sys.exit()
    for name in ("wasserstein", "embedding", "memory"):
        command = [sys.executable, __file__, name]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        print(name + ": " + ", ".join(f"{key} {value:.4g}" for key, value in found.items()))
