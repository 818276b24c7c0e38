"""``dp-mft plan``: folds, strategies and seeds as one thing, trained by make."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from deepmd_mft.cli.input import add_filling, read_filling

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "split",
        nargs="+",
        type=Path,
        metavar="SPLIT",
        help="the folder that dp-mft split wrote, or some of its folds",
    )
    parser.add_argument(
        "--template",
        nargs="+",
        required=True,
        metavar="[NAME=]FILE",
        help="the name of a template, or any input.json, for each strategy; those with "
        "finetune_head start from the checkpoint, others from random weights",
    )
    parser.add_argument(
        "--seeds",
        nargs="+",
        type=int,
        default=[1],
        metavar="SEED",
        help="a run of each; by default 1",
    )
    add_filling(parser)
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("plan"), help="folder to write: plan"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="only errors")


def run(args: argparse.Namespace) -> int:
    """Write the plan; say what comes next."""
    from deepmd_mft.plans.strategies import read_strategies  # noqa: PLC0415
    from deepmd_mft.plans.write import Plan, write_plan  # noqa: PLC0415

    def tell(text: str) -> None:
        if not args.quiet:
            print(text, file=sys.stderr)

    filling = read_filling(args, [], [])
    strategies, filling.checkpoint = read_strategies(args.template, filling.checkpoint)
    plan = Plan.of(args.split, strategies, args.seeds, filling)
    new = write_plan(plan, args.out, tell)
    for note in plan.notes:
        tell(f"dp-mft plan: {note}")
    for one in strategies:
        start = f"from {filling.checkpoint}" if one.finetunes else "from random weights"
        tell(f"{one.name}: {start}, {len(plan.folds)} x {len(args.seeds)} runs (folds, seeds)")
    tell(f"{len(new)} of {len(plan.runs)} runs are new in {args.out}; next:")
    tell(f"  make -C {shlex.quote(str(args.out))} -j 2 -k")
    return 0
