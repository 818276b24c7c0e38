"""The memory of a training step: what `dp-mft check` estimates against what `dp --pt train` takes.

    python benchmarks/memory.py --work DIR

Two steps each of seven inputs that differ in batch, network, angles and branch; printed are the
estimate, and the largest resident memory of the process less that of an idle one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "examples" / "qm9_gap" / "data"
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "DP_INTRA_OP_PARALLELISM_THREADS": "1",
    "DP_INTER_OP_PARALLELISM_THREADS": "1",
    "NUM_WORKERS": "0",
}
LARGE = {"n_dim": 128, "e_dim": 64, "a_dim": 32, "nlayers": 8}
MANY_ANGLES = {"a_rcut": 4.0, "a_rcut_smth": 3.0}
CASES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "property, 64 molecules": ("scratch", 64, {}),
    "property, 128 molecules": ("scratch", 128, {}),
    "property, 32 molecules, large network": ("scratch", 32, LARGE),
    "property, 32 molecules, many angles": ("scratch", 32, MANY_ANGLES),
    "forces, 64 molecules": ("pretrain", 64, {}),
    "forces, 32 molecules, large network": ("pretrain", 32, LARGE),
    "forces, 32 molecules, many angles": ("pretrain", 32, MANY_ANGLES),
}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="where to train")
    work = parser.parse_args().work
    idle = peak(work / "idle", write_input(work / "idle", "pretrain", 1, {}))
    print(f"{'':40}{'estimate':>10}{'measured':>10}{'ratio':>8}  (GiB)")
    for name, (kind, batch, repflow) in CASES.items():
        folder = work / name.replace(", ", "-").replace(" ", "_")
        path = write_input(folder, kind, batch, repflow)
        guess, taken = estimate(folder, path), peak(folder, path) - idle
        print(f"{name:40}{guess:>10.2f}{taken:>10.2f}{guess / taken:>8.2f}", flush=True)
    return 0


def write_input(folder: Path, kind: str, batch: int, repflow: dict[str, Any]) -> Path:
    """Write a small template with another batch size and network."""
    template = "pretrain" if kind == "pretrain" else f"input_{kind}"
    config = json.loads((ROOT / "input_templates" / "small" / f"{template}.json").read_text())
    training, model = config["training"], config["model"]
    if kind == "pretrain":
        descriptor = model["shared_dict"]["dpa3_descriptor"]
        model["model_dict"]["GFN2"]["data_stat_nbatch"] = 1
        data, systems = training["data_dict"]["GFN2"], "aux_valid"
    else:
        descriptor, data, systems = model["descriptor"], training, "train"
        model["data_stat_nbatch"] = 2
    descriptor["repflow"] |= repflow
    data["training_data"] = {"systems": str(DATA / systems), "batch_size": batch}
    data["validation_data"] = {"systems": str(DATA / systems), "batch_size": 1, "numb_btch": 1}
    training |= {"numb_steps": 2, "save_freq": 100, "disp_freq": 100}
    config["learning_rate"]["warmup_steps"] = 0
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "input.json"
    path.write_text(json.dumps(config, indent=1))
    return path


def estimate(folder: Path, path: Path) -> float:
    """Return the estimate of `dp-mft check`."""
    done = subprocess.run(
        [sys.executable, "-m", "deepmd_mft", "check", path.name, "--json"],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    return float(json.loads(done.stdout)["facts"]["memory_gib"])


def peak(folder: Path, path: Path) -> float:
    """Return the largest resident memory of the training, in GiB."""
    command = [sys.executable, "-m", "deepmd", "--pt", "train", path.name, "--skip-neighbor-stat"]
    with (folder / "train.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=ENVIRONMENT, stdout=log, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{folder}: training failed, see train.log")
    return float(usage.ru_maxrss) / 2**20


if __name__ == "__main__":
    sys.exit(main())
