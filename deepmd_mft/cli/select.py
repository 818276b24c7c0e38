"""``dp-mft select``: the best checkpoint of a run, on its validation set."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("folder", type=Path, metavar="RUN", help="folder in which `dp train` ran")
    parser.add_argument(
        "--input", type=Path, help="its input, JSON or YAML; deepmd-kit's RUN/out.json by default"
    )
    parser.add_argument("--head", help="property branch; by default the main one")
    parser.add_argument(
        "--property",
        help="which one counts, of a head that has several; by default their mean, each in units "
        "of the standard deviation of its validation labels",
    )
    parser.add_argument("--metric", help="rmse by default; for classes roc_auc or accuracy")
    parser.add_argument(
        "--average",
        nargs="+",
        default=[],
        metavar="last:K|best:K",
        help="also try averages of the weights of the last or the best K checkpoints, uniform and "
        "greedy; one is kept only if it is better on the validation set",
    )
    parser.add_argument("--overwrite", action="store_true", help="forget an earlier selection")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bar, no curve")


def run(args: argparse.Namespace) -> int:
    """Select, print the curve."""
    averages = [_parse_average(text) for text in args.average]
    from deepmd_mft.checkpoints.run import TrainingRun  # noqa: PLC0415
    from deepmd_mft.checkpoints.selection import BEST, RECORD, curve, select  # noqa: PLC0415
    from deepmd_mft.files.lock import locked  # noqa: PLC0415

    training = TrainingRun(args.folder, args.input)
    with locked(args.folder / RECORD):
        found = select(
            training,
            head=args.head,
            name=args.property,
            metric=args.metric,
            averages=averages,
            overwrite=args.overwrite,
            progress=not args.quiet and sys.stderr.isatty(),
        )
    if not args.quiet:
        print(curve(found))
        for one in found.averages:
            kept = "kept" if one["kept"] else "not kept"
            print(
                f"{one['kind']} average of {len(one['members'])}: {found.metric} "
                f"{one[found.metric]:.5g}, {kept}"
            )
        print(f"{args.folder / BEST} -> {found.best.relative_to(args.folder)}")
    for note in found.skipped:
        print(f"dp-mft select: {note}", file=sys.stderr)
    return 0


def _parse_average(text: str) -> tuple[str, int]:
    kind, _, number = text.partition(":")
    if kind not in ("last", "best") or not number.isdigit() or int(number) < 2:
        raise UserError(f"--average {text}: write last:K or best:K with K of at least 2")
    return kind, int(number)
