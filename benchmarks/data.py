"""How long conversions, splits and features take.

    python benchmarks/data.py [--qm9 FOLDER] [--only NAME ...]

``--qm9`` is the folder of qm9pack's CSV files. Real data come from ``../shared/data`` (or
``DEEPMD_MFT_SHARED``); SPICE and the perovskites are made up in the same layout and size.
Each line shows the measured time, the peak memory of the process, and the bound of the
project.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from deepmd_mft.data.convert import convert as run
from deepmd_mft.data.readers import open_source
from deepmd_mft.splits.boom import boom as split
from deepmd_mft.splits.ofm import orbital_field_matrices
from deepmd_mft.structures.structure_set import StructureSet

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("DEEPMD_MFT_SHARED", ROOT.parent / "shared")) / "data"
TARGETS = ("mu", "alpha", "homo", "lumo", "gap", "r2", "zpve", "cv")
PEROVSKITES = 18_928


def convert(source: Path, out: Path) -> int:
    """Convert and return the number of structures."""
    return run(open_source(source), out, overwrite=True, progress=False).structures


def qm9(folder: Path, work: Path) -> str:
    """QM9 CSV files to deepmd/npy."""
    return f"{convert(folder, work / 'qm9'):,} molecules"


def boom(folder: Path, work: Path) -> str:
    """BOOM's OOD rows of the eight QM9 targets; the slowest counts."""
    if not (work / "qm9").is_dir():
        convert(folder, work / "qm9")
    data = StructureSet.open(work / "qm9")
    lines, groups = [], np.arange(len(data))
    for target in TARGETS:
        values = data.label(target)
        start = time.perf_counter()
        (fold,) = split(values, groups)
        seconds = time.perf_counter() - start
        ood, rest = values[fold.ood_test], values[fold.train]
        lines.append(
            f"    {target:<6}{seconds:5.1f} s  OOD {len(ood):,}: {ood.min():.4g} to "
            f"{ood.max():.4g}; train {len(rest):,}: {rest.min():.4g} to {rest.max():.4g}; "
            f"val {len(fold.val):,}, ID test {len(fold.id_test):,}"
        )
    return "the eight targets\n" + "\n".join(lines)


def dielectric(_: Path, work: Path) -> str:
    """MatBench dielectric to deepmd/npy."""
    path = SHARED / "matbench" / "matbench_dielectric.json.gz"
    return f"{convert(path, work / 'dielectric'):,} crystals"


def spice(_: Path, work: Path) -> str:
    """SPICE-layout HDF5 to LMDB and npy: configurations a second."""
    path, rng = work / "spice.hdf5", np.random.default_rng(0)
    with h5py.File(path, "w") as handle:
        for i in range(2000):
            natoms = int(rng.integers(20, 50))
            grid = np.argwhere(np.ones((4, 4, 4)))[:natoms] * 3.0
            group = handle.create_group(f"m{i}")
            group["atomic_numbers"] = rng.choice([1, 6, 7, 8], natoms).astype(np.int16)
            noise = rng.normal(scale=0.1, size=(50, natoms, 3))
            group["conformations"] = (grid + noise).astype(np.float32)
            group["dft_total_energy"] = rng.normal(-500, 10, 50)
            group["dft_total_gradient"] = noise.astype(np.float32)
            group["smiles"] = [f"C{i}".encode()]
            group["subset"] = [b"made up"]
    parts = []
    for name in ("spice", "spice.lmdb"):
        start = time.perf_counter()
        n = convert(path, work / name)
        rate = n / (time.perf_counter() - start)
        parts.append(f"{'LMDB' if name.endswith('lmdb') else 'npy'} {rate:,.0f}/s")
    return f"{n:,} configurations: {', '.join(parts)}"


def perovskites(_: Path, work: Path) -> str:  # noqa: ARG001 - called as the others
    """Orbital-field matrices of 18,928 five-atom perovskites, two processes, no cache."""
    rng = np.random.default_rng(0)
    base = np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])

    def structures() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        for _ in range(PEROVSKITES):
            cell = np.eye(3) * rng.uniform(3.6, 4.6) + rng.normal(scale=0.05, size=(3, 3))
            fractions = base + rng.normal(scale=0.01, size=(5, 3))
            yield rng.integers(3, 83, 5), fractions @ cell, cell

    matrices = orbital_field_matrices(structures(), total=PEROVSKITES, jobs=2)
    return f"{len(matrices):,} crystals x {matrices.shape[1]}"


#: What is measured, and the bound in seconds.
BENCHMARKS = {
    "qm9": (qm9, "< 90 s"),
    "boom": (boom, "< 10 s a target"),
    "dielectric": (dielectric, "< 30 s"),
    "spice": (spice, ">= 20,000/s"),
    "perovskites": (perovskites, "< 300 s"),
}


def main() -> None:
    """Run each benchmark in a process of its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--qm9", type=Path)
    parser.add_argument("--only", nargs="*", choices=BENCHMARKS, default=list(BENCHMARKS))
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        name = args.only[0]
        function, bound = BENCHMARKS[name]
        start = time.perf_counter()
        found = function(args.qm9, args.work)
        seconds = time.perf_counter() - start
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{name:<12}{seconds:7.1f} s {memory:6.0f} MB  (bound {bound})  {found}", flush=True)
        return
    with tempfile.TemporaryDirectory() as work:
        for name in args.only:
            if name in ("qm9", "boom") and args.qm9 is None:
                print(f"{name:<12}left out: give --qm9 FOLDER")
                continue
            command = [sys.executable, __file__, "--work", work, "--only", name]
            if args.qm9:
                command += ["--qm9", str(args.qm9)]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
