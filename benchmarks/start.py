"""Start of ``dp --pt train`` with 100,000 structures, and evaluation, against plain deepmd-kit.

The parts ``start`` and ``evaluation`` of ``benchmarks/speed.py``. Commands take turns; printed are
ratios of processor times and of wall times, ours to theirs.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from evaluation import copy_sets, evaluating, timed
from speed import DATA, LEARNING_RATE, branch_inputs, line

SETS = ("train", "valid", "id_test", "ood_test")
STRUCTURES = 100_000


def start(rounds: int, threads: int) -> dict[str, Any]:
    """Time trainings of one step: plain, ours the first time, ours with statistics known."""
    times: dict[str, list[dict[str, float]]] = {"plain": [], "first": [], "second": []}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_structures(folder / "data", STRUCTURES)
        train(folder, "plain", threads)  # files and libraries are read once before the clock counts
        for number in range(rounds):
            for kind, found in times.items():
                cache = {"XDG_CACHE_HOME": str(folder / f"cache{number}")}
                found.append(train(folder, kind, threads, **cache))
    print(f"\nstart of dp --pt train, {STRUCTURES} structures, against plain deepmd-kit")
    for kind in ("first", "second"):
        for clock in ("cpu_s", "wall_s"):
            pairs = zip(times[kind], times["plain"], strict=True)
            line(f"{kind} start, {clock[:-2]}", [a[clock] / b[clock] for a, b in pairs])
    for kind, found in times.items():
        print(f"  {kind}: {sorted(one['cpu_s'] for one in found)} s of processor time")
    return times


def evaluation(rounds: int, threads: int, copies: int = 8) -> list[dict[str, Any]]:
    """Time ``dp-mft evaluate`` and ``dp --pt test`` of 16,000 molecules."""
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_structures(folder / "data", 2000)
        train(folder, "first", threads)
        run = folder / "first"
        timed(threads, "deepmd", "--pt", "freeze", "-o", str(run / "model"), cwd=run)
        split = copy_sets(copies, folder / "split")
        for number in range(rounds):
            one = evaluating(run / "model.pth", split, threads, folder / f"out{number}")
            found.append(one)
    print(f"\nevaluation of {2000 * copies} molecules: dp --pt test / dp-mft evaluate")
    for clock in ("cpu", "wall"):
        line(clock, [1.0 / one[f"ratio_{clock}"] for one in found])
    return found


def train(folder: Path, kind: str, threads: int, **variables: str) -> dict[str, float]:
    """Run one step with the embedded network; the input is native or ours."""
    run = folder / kind
    run.mkdir(exist_ok=True)
    model = branch_inputs("embedded", "b")["property"]
    loss = {"type": "property", "loss_func": "mse"}
    if kind != "plain":
        model = {**model, "type": "mft"}
        model["fitting_net"] = {**model["fitting_net"], "type": "mft_property"}
        loss["type"] = "mft_property"
    config = {
        "model": model,
        "loss": loss,
        "learning_rate": {"type": "exp", "start_lr": LEARNING_RATE, "stop_lr": 1e-6},
        "training": {
            "training_data": {"systems": str(folder / "data"), "batch_size": 16},
            "numb_steps": 1,
            "save_freq": 1,
            "seed": 1,
        },
    }
    (run / "input.json").write_text(json.dumps(config))
    return timed(threads, "deepmd", "--pt", "train", "input.json", cwd=run, **variables)


def write_structures(system: Path, number: int) -> None:
    """Write a mixed system of the embedded molecules, each many times over."""
    (system / "set.000").mkdir(parents=True)
    for name in ("coord", "real_atom_types", "gap"):
        rows = np.concatenate([np.load(DATA / one / "set.000" / f"{name}.npy") for one in SETS])
        np.save(system / "set.000" / f"{name}.npy", rows[np.arange(number) % len(rows)])
    shutil.copy(DATA / "train" / "type.raw", system)
    shutil.copy(DATA / "train" / "type_map.raw", system)
    (system / "nopbc").touch()
