"""Time and memory of `dp-mft check`, and of the checks before a training, on large sets.

    python benchmarks/check.py [--structures 111548] [--folders 25] [--frames 1000000] [--keep DIR]

Two synthetic layouts: molecules in one folder for each number of atoms, as QM9 is published (with
`dp-mft check`), and one npy system of many frames (with the checks that `dp --pt train` runs). No
network is trained. Prints one JSON line for each.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

TYPE_MAP = ["H", "C", "N", "O", "F"]
GATE = """
import argparse, json, sys, time
started = time.perf_counter()
from deepmd.pt.entrypoints import main
imported = time.perf_counter()
from deepmd_mft.inputs.gate import check_command
check_command(argparse.Namespace(command="train", INPUT=sys.argv[1], finetune=None,
    init_model=None, restart=None, skip_neighbor_stat=True))
print(json.dumps({"import_s": round(imported - started, 1),
    "gate_s": round(time.perf_counter() - imported, 1)}))
"""


def write_system(folder: Path, natoms: int, nframes: int, rng: np.random.Generator) -> None:
    """Write random molecules of one size with a label."""
    part = folder / "set.000"
    part.mkdir(parents=True)
    grid = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), -1).reshape(-1, 3)[:natoms]
    coords = np.lib.format.open_memmap(
        part / "coord.npy", mode="w+", dtype=np.float32, shape=(nframes, 3 * natoms)
    )
    types = np.lib.format.open_memmap(
        part / "real_atom_types.npy", mode="w+", dtype=np.int32, shape=(nframes, natoms)
    )
    for start in range(0, nframes, 50_000):
        rows = slice(start, min(start + 50_000, nframes))
        n = rows.stop - rows.start
        noise = rng.normal(scale=0.1, size=(n, natoms, 3))
        coords[rows] = (1.5 * grid + noise).reshape(n, -1)
        types[rows] = rng.integers(0, len(TYPE_MAP), size=(n, natoms))
    np.save(part / "gap.npy", rng.normal(0.25, 0.05, size=(nframes, 1)))
    (folder / "type.raw").write_text("0\n" * natoms)
    (folder / "type_map.raw").write_text("\n".join(TYPE_MAP) + "\n")
    (folder / "nopbc").touch()


def training_input(train: Path, valid: Path) -> dict[str, Any]:
    """Return an input of a small DPA-3."""
    flow = {"n_dim": 12, "e_dim": 8, "a_dim": 4, "nlayers": 2, "e_rcut": 4.0, "e_rcut_smth": 3.0}
    flow |= {"e_sel": 60, "a_rcut": 3.0, "a_rcut_smth": 2.0, "a_sel": 30}
    net = {"type": "mft_property", "property_name": "gap", "intensive": True, "neuron": [12]}
    return {
        "model": {
            "type": "mft",
            "type_map": TYPE_MAP,
            "descriptor": {"type": "dpa3", "repflow": flow},
            "fitting_net": net,
        },
        "learning_rate": {"type": "exp", "start_lr": 1e-3, "stop_lr": 1e-5, "decay_steps": 100},
        "loss": {"type": "mft_property"},
        "training": {
            "numb_steps": 1000,
            "training_data": {"systems": str(train), "batch_size": "auto:512"},
            "validation_data": {"systems": str(valid), "batch_size": "auto:512"},
        },
    }


def measure(name: str, command: list[str]) -> None:
    """Run a command; print seconds and peak memory, and what it printed last.

    It runs in a folder of its own: a start is recorded in the current one, as `dp train` does.
    """
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=folder)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        output.seek(0)
        last = (output.read().strip().splitlines() or [""])[-1]
    record = {
        "what": name,
        "wall_s": round(seconds, 1),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_gib": round(usage.ru_maxrss / 2**20, 2),
        "status": os.waitstatus_to_exitcode(status),
        "last_line": last,
    }
    print(json.dumps(record), flush=True)


def main() -> int:
    """Write the layouts, measure, remove them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--structures", type=int, default=111_548)
    parser.add_argument("--folders", type=int, default=25)
    parser.add_argument("--frames", type=int, default=1_000_000, help="of the npy system")
    parser.add_argument("--keep", type=Path, help="write the layouts here and keep them")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = (args.keep or Path(temporary)).resolve()
        rng = np.random.default_rng(0)
        sizes = rng.multinomial(args.structures, np.full(args.folders, 1 / args.folders))
        layout = root / "by_count"
        for number, nframes in enumerate(sizes.tolist()):
            for part, n in (("train", nframes), ("valid", max(1, nframes // 20))):
                folder = layout / part / str(3 + number)
                if not folder.exists():
                    write_system(folder, 3 + number, n, rng)
        inputs = root / "input.json"
        inputs.write_text(json.dumps(training_input(layout / "train", layout / "valid")))
        name = f"check, {args.structures} structures in {args.folders} folders"
        measure(name, [sys.executable, "-m", "deepmd_mft", "check", str(inputs)])
        measure("gate, the same", [sys.executable, "-c", GATE, str(inputs)])
        many = root / "many"
        if args.frames and not many.exists():
            write_system(many, 20, args.frames, rng)
        if args.frames:
            inputs.write_text(json.dumps(training_input(many, layout / "valid")))
            name = f"gate, {args.frames} frames of npy"
            measure(name, [sys.executable, "-c", GATE, str(inputs)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
