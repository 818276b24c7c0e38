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
#: deepmd-kit's readers, open and after frames were drawn: kilobytes, seconds of the processor.
READER = """
import json, resource, sys, time
from deepmd.dpmodel.utils.lmdb_data import LmdbDataReader
from deepmd.utils.data import DataRequirementItem as Item, DeepmdData
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
path, nframes, elements = sys.argv[1], int(sys.argv[2]), ["H", "C", "N", "O", "F"]
before, start = peak(), time.process_time()
if path.endswith(".lmdb"):
    reader = LmdbDataReader(path, elements, 64)
    reader.add_data_requirement([Item("energy", 1), Item("force", 3, atomic=True)])
    draw = reader.__getitem__
else:
    (system,) = __import__("pathlib").Path(path).glob("[0-9]*")
    reader = DeepmdData(str(system), type_map=elements)
    reader.add("energy", 1, atomic=False, must=True)
    reader.add("force", 3, atomic=True, must=True)
    draw = lambda row: reader.get_single_frame(row, num_worker=1)
found = {"open_kib": peak() - before}
opened = time.process_time()
for row in range(nframes):
    draw(row)
found |= {"drawn_kib": peak() - before, "drawn_s": time.process_time() - opened}
print(json.dumps(found))
"""
#: The labels as they are checked before a training, and structures as every verb reads them.
CHECKS = """
import json, sys, time
from pathlib import Path
from deepmd_mft.inputs.branches import normalised, read_branches
from deepmd_mft.inputs.data import check_data
from deepmd_mft.inputs.findings import Findings
import deepmd_mft.inputs.lmdb
from deepmd_mft.structures.structure_set import StructureSet
(branch,) = read_branches(normalised(json.loads(Path("input.json").read_text())))
del branch.data["validation_data"]
check_data(branch, Findings(stop=True))  # with what it imports
start = time.process_time()
check_data(branch, Findings(stop=True))
checked = time.process_time()
number = sum(1 for _ in StructureSet("all", [Path(sys.argv[1])]))
read_s = time.process_time() - checked
print(json.dumps({"frames": number, "checked_s": checked - start, "read_s": read_s}))
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
    """Take one size through convert, split, the readers and the checks."""
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
        split = [*verb, "split", "random", name, f"parts-of-{data.stem}", *quiet]
        found[f"{name}: split random"] = measure(split, root)
        (root / "input.json").write_text(json.dumps(force_field_input(data)))
        for what, script in (("reader", READER), ("checks", CHECKS)):
            ended = measure([sys.executable, "-c", script, name, str(nframes)], root)
            found[f"{name}: {what}"] = json.loads(ended["last_line"])
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
