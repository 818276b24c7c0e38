"""``dp-mft replay``: an auxiliary set without the original data."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    add = parser.add_argument
    add("checkpoint", metavar="CHECKPOINT", help="FILE[:BRANCH], the pretrained model")
    add(
        "structures",
        nargs="+",
        type=Path,
        metavar="STRUCTURES",
        help="sets of deepmd systems, LMDBs, structure files, tables of SMILES and whatever else "
        "dp-mft convert reads; their labels do not matter",
    )
    add("-o", "--out", type=Path, required=True, metavar="DIR", help="folder to write")
    add(
        "--teacher",
        nargs="+",
        default=["pretrained"],
        metavar="NAME",
        help="pretrained (the checkpoint's force field), gfn2, gfn1 (tblite), or an ase calculator "
        "as MODULE:CLASS; of several each has its folder",
    )
    add(
        "--label",
        default="",
        metavar="NAME,...",
        help="electronic labels beside energies and forces, by gfn2 or gfn1: gap, homo, lumo "
        "(Hartree), dipole (its norm, mu, in Debye), polarizability (alpha, Bohr^3), extent (of "
        "the populations, for r2, Bohr^2)",
    )
    add("--number", type=int, help="choose so many, far from each other in representation space")
    add("--copies", type=int, default=0, help="rattled copies of each structure beside it (0)")
    add(
        "--rattle",
        type=float,
        nargs=2,
        default=[0.02, 0.1],
        metavar=("FROM", "TO"),
        help="standard deviation of the displacements, drawn for each copy, Angstrom (0.02 0.1)",
    )
    add("--strain", type=float, default=0.0, help="standard deviation of crystals' strain (0)")
    add("--valid", type=float, default=0.1, help="fraction for validation (0.1)")
    add("--max-force", type=float, default=30.0, help="leave out frames above, eV/A (30)")
    add("--seed", type=int, default=1, help="of every draw (1)")
    add("--jobs", type=int, default=os.cpu_count() or 1, help="processes; one per core by default")
    add("--overwrite", action="store_true", help="replace an existing folder of this verb")
    add("-q", "--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> int:
    """Label, write, print."""
    from deepmd_mft.checkpoints.model_file import ModelFile  # noqa: PLC0415
    from deepmd_mft.data.replay import Replay, replay  # noqa: PLC0415
    from deepmd_mft.files.staging import check_folder  # noqa: PLC0415

    checkpoint = ModelFile.parse(args.checkpoint)
    check_folder(args.out, "replay", [checkpoint.path, *args.structures], overwrite=args.overwrite)
    wanted = Replay(
        checkpoint,
        args.structures,
        args.teacher,
        [name.strip() for name in args.label.split(",") if name.strip()],
        number=args.number,
        copies=args.copies,
        rattle=(args.rattle[0], args.rattle[1]),
        strain=args.strain,
        valid=args.valid,
        max_force=args.max_force,
        seed=args.seed,
        jobs=args.jobs,
    )
    progress = not args.quiet and sys.stderr.isatty()
    made = replay(wanted, args.out, overwrite=args.overwrite, progress=progress)
    for line in made.unread.skipped:
        print(f"not read      {line}")
    for name, summary in made.sets.items():
        print(f"{args.out / name}\n{summary.text()}")
    return 0
