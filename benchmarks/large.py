"""Bytes, processor time and memory a frame, at two sizes: what a very large set would take.

    python benchmarks/large.py [--frames 20000 80000] [--natoms 20] [--keep DIR]

Molecules are made up: jittered grids with energies, forces and a property, as one npz. Prints one
JSON line for each measurement; a frame's share is the difference of the two sizes, which leaves out
what does not grow. Of HDF5, which DeePMD-kit trains from and ``convert`` does not write, the size
alone is taken.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from check import training_input

NUMBERS = np.array([1, 6, 7, 8, 9])
#: The loader of `dp --pt train`, open and after every frame was drawn; then the checks before
#: a training. Kilobytes above those of the imports, seconds of the processor.
TRAINING = """
import argparse, json, resource, sys, time
from pathlib import Path
from deepmd.pt.entrypoints import main
from deepmd.utils.data import DataRequirementItem as Item
from deepmd_mft.bridge.inputs import TrainingData
from deepmd_mft.inputs.gate import check_command
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before, path, seconds = peak(), Path(sys.argv[1]), [time.process_time()]
lmdb = path.suffix == ".lmdb"
systems = [str(path)] if lmdb else [str(one.parent) for one in sorted(path.rglob("type.raw"))]
opened = TrainingData({"batch_size": 64}, systems, ["H", "C", "N", "O", "F"])
loader = opened.data
loader.add_data_requirement([Item("energy", 1), Item("force", 3, atomic=True)])
found = {"open_kib": peak() - before}
sources = [loader._inner_dataloader] if lmdb else loader.dataloaders
seconds.append(time.process_time())
found["frames"] = sum(len(batch["energy"]) for source in sources for batch in source)
seconds.append(time.process_time())
found["drawn_kib"] = peak() - before
opened.close()
check_command(argparse.Namespace(command="train", INPUT="input.json", finetune=None,
    init_model=None, restart=None, skip_neighbor_stat=True))
seconds.append(time.process_time())
found["checked_kib"] = peak() - before
for name, first, second in zip(("open_s", "drawn_s", "checked_s"), seconds, seconds[1:]):
    found[name] = second - first
print(json.dumps(found))
"""


def write_source(path: Path, nframes: int, natoms: int) -> None:
    """Write molecules of one size, of 50 compositions."""
    rng = np.random.default_rng(0)
    grid = np.argwhere(np.ones((4, 4, 4)))[:natoms] * 1.6
    kinds = rng.choice(NUMBERS, (50, natoms))
    noise = rng.normal(scale=0.1, size=(nframes, natoms, 3))
    np.savez(
        path,
        R=grid + noise,
        z=kinds[rng.integers(0, len(kinds), nframes)],
        E=rng.normal(-500, 10, nframes),
        F=noise,
    )


def measure(command: list[str], folder: Path) -> dict[str, Any]:
    """Run a command; return processor seconds, peak memory and its last line."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=folder)
        _, status, usage = os.wait4(process.pid, 0)
        output.seek(0)
        last = (output.read().strip().splitlines() or [""])[-1]
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{' '.join(command)}: {last}")
    cpu = round(usage.ru_utime + usage.ru_stime, 2)
    return {"cpu_s": cpu, "peak_kib": usage.ru_maxrss, "last_line": last}


def size_of(path: Path) -> int:
    """Return the bytes of all files of a folder that are used on the disk."""
    return sum(512 * one.stat().st_blocks for one in path.rglob("*") if one.is_file())


def write_hdf5(source: Path, path: Path) -> None:
    """Write the arrays as a system of deepmd-kit's HDF5, in double precision."""
    arrays = np.load(source)
    with h5py.File(path, "w") as file:
        group = file.create_group("system/set.000")
        for name, key in (("coord", "R"), ("force", "F"), ("energy", "E")):
            group[name] = arrays[key].reshape(len(arrays["E"]), -1).astype(np.float64)
        group["real_atom_types"] = arrays["z"].astype(np.int32)


def force_field_input(system: Path) -> dict[str, Any]:
    """Return an input that trains on energies and forces."""
    config = training_input(system, system)
    config["model"] |= {"fitting_net": {"type": "ener", "neuron": [12]}}
    del config["model"]["type"]
    config["loss"] = {"type": "mft_force_field", "start_pref_e": 1, "start_pref_f": 1}
    return config


def measure_size(root: Path, nframes: int, natoms: int) -> dict[str, dict[str, Any]]:
    """Take one size through convert, split, the checks and the loader."""
    root.mkdir(parents=True, exist_ok=True)
    source = root / "source.npz"
    write_source(source, nframes, natoms)
    write_hdf5(source, root / "set.hdf5")
    found: dict[str, dict[str, Any]] = {"hdf5": {"bytes": (root / "set.hdf5").stat().st_size}}
    verb = [sys.executable, "-m", "deepmd_mft"]
    for name in ("npy", "set.lmdb"):
        data = root / name
        quiet = ["--jobs", "1", "-q"]
        convert = [*verb, "convert", "source.npz", name, "--energy-unit", "eV", *quiet]
        found[f"{name}: convert"] = measure(convert, root)
        found[f"{name}: convert"]["bytes"] = size_of(data)
        split = [*verb, "split", "random", name, f"parts-{name}", *quiet]
        found[f"{name}: split random"] = measure(split, root)
        (root / "input.json").write_text(json.dumps(force_field_input(data)))
        training = measure([sys.executable, "-c", TRAINING, name], root)
        found[f"{name}: training"] = json.loads(training["last_line"])
    return found


def main() -> int:
    """Measure two sizes; print them, and the difference a frame."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, nargs=2, default=[20_000, 80_000])
    parser.add_argument("--natoms", type=int, default=20)
    parser.add_argument("--keep", type=Path, help="write the data here and keep them")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = (args.keep or Path(temporary)).resolve()
        sizes = [measure_size(root / str(n), n, args.natoms) for n in args.frames]
    more = args.frames[1] - args.frames[0]
    for name, small in sizes[0].items():
        large = sizes[1][name]
        numbers = [key for key, value in small.items() if isinstance(value, (int, float))]
        a_frame = {
            key: round((large[key] - small[key]) / more * SCALE.get(key.split("_")[-1], 1), 4)
            for key in numbers
        }
        print(json.dumps({"what": name, "small": small, "large": large, "a_frame": a_frame}))
    return 0


#: A frame's share is given in ms and bytes.
SCALE = {"s": 1000, "kib": 1024}

if __name__ == "__main__":
    sys.exit(main())
