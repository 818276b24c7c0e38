"""Time of `dp-mft evaluate` against `dp --pt test`, and of `dp-mft select` a checkpoint.

    python benchmarks/evaluation.py MODEL.pth RUN [--copies 8] [--threads 2 1]

MODEL.pth is tested on the embedded ID and OOD test sets, each copied `--copies` times: 8 make
16,000 molecules. The commands run one after the other on the same cores, and the ratio of their
wall times is printed for each number of threads; both include their start. The machine must be
free: dp's threads wait for each other, and one other job slows them many-fold. RUN is a folder
with checkpoints of the same training: selecting is compared, on one thread, with the single
validation passes that it consists of.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

DATA = Path(__file__).resolve().parents[1] / "examples" / "qm9_gap" / "data"


def environment(threads: int) -> dict[str, str]:
    """Return the environment of a command that uses so many threads."""
    names = (
        "OMP_NUM_THREADS",
        "DP_INTRA_OP_PARALLELISM_THREADS",
        "DP_INTER_OP_PARALLELISM_THREADS",
    )
    return {**os.environ, **dict.fromkeys(names, str(threads))}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--copies", type=int, default=8)
    parser.add_argument("--checkpoints", type=int, default=50)
    parser.add_argument("--threads", type=int, nargs="+", default=[os.cpu_count() or 1, 1])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        split = copy_sets(args.copies, Path(scratch) / "split")
        found: dict[str, object] = {"molecules": 2000 * args.copies}
        for threads in args.threads:
            found[f"evaluate, {threads} threads"] = evaluating(
                args.model.resolve(), split, threads, Path(scratch) / f"out{threads}"
            )
        found["select"] = selecting(args.run.resolve(), args.checkpoints, Path(scratch))
    print(json.dumps(found, indent=1))
    return 0


def timed(
    threads: int, *command: str, cwd: Path | None = None, **variables: str
) -> dict[str, float]:
    """Run a command; return its wall and processor time in seconds."""
    before, start = os.times(), time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", *command],
        check=True,
        env={**environment(threads), **variables},
        cwd=cwd,
        capture_output=True,
    )
    after = os.times()
    used = after.children_user + after.children_system
    used -= before.children_user + before.children_system
    return {"wall_s": round(time.perf_counter() - start, 1), "cpu_s": round(used, 1)}


def copy_sets(copies: int, split: Path) -> Path:
    """Write the embedded test sets, each `copies` times over."""
    for name in ("id_test", "ood_test"):
        shutil.copytree(DATA / name, split / name)
        for path in (split / name / "set.000").glob("*.npy"):
            np.save(path, np.concatenate([np.load(path)] * copies))
    return split


def evaluating(model: Path, split: Path, threads: int, out: Path) -> dict[str, Any]:
    """Time both commands on the same folders."""
    ours = timed(
        threads,
        "deepmd_mft", "evaluate", str(model), "--split", str(split), "-q", "-o", str(out),
    )  # fmt: skip
    theirs = timed(threads, "deepmd", "--pt", "test", "-m", str(model), "-s", str(split), "-n", "0")
    return {
        "evaluate": ours,
        "dp_test": theirs,
        "ratio_wall": round(ours["wall_s"] / theirs["wall_s"], 3),
        "ratio_cpu": round(ours["cpu_s"] / theirs["cpu_s"], 3),
    }


def selecting(run: Path, checkpoints: int, scratch: Path) -> dict[str, object]:
    """Time `select` over copies of checkpoints against validation passes alone."""
    code = f"""
import os, shutil, sys, time
from pathlib import Path
from deepmd_mft.checkpoints.run import TrainingRun
from deepmd_mft.checkpoints.selection import Validation, select
import torch
source, folder = Path({str(run)!r}), Path({str(scratch / "run")!r})
folder.mkdir()
shutil.copy(source / "input.json", folder)
for link in ("data",):
    (folder / link).symlink_to((source / link).resolve())
kept = TrainingRun(source).checkpoints()
for n in range({checkpoints}):
    state = torch.load(kept[n % len(kept)].path, weights_only=True)
    state["copy"] = n  # another checksum
    torch.save(state, folder / f"model.ckpt-{{n + 1}}.pt")
run = TrainingRun(folder)
validation = Validation(run, None, folder / "model.ckpt-1.pt")
passes = []
for _ in range(5):
    start = time.process_time()
    validation.predictor.predict(validation.batches)
    passes.append(time.process_time() - start)
start = time.process_time()
select(run, progress=False)
print(time.process_time() - start, sorted(passes)[2])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        env=environment(1),
        capture_output=True,
        text=True,
    )
    total, one = map(float, done.stdout.split()[-2:])
    return {
        "checkpoints": checkpoints,
        "select_cpu_s": round(total, 1),
        "one_pass_cpu_s": round(one, 3),
        "ratio": round(total / (checkpoints * one), 3),
    }


if __name__ == "__main__":
    sys.exit(main())
