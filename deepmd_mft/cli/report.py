"""``dp-mft report``: one page that compares runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from deepmd_mft.errors import UserError, missing_package

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN[:STRATEGY]",
        help="folders in which `dp train` ran; the strategy (scratch, multitask, ft, lp, mft, "
        "mft-property, mft-both) needs to be said only where the run has no record of its start",
    )
    parser.add_argument("-o", "--out", type=Path, default=Path("report.html"), help="report.html")
    parser.add_argument(
        "--split",
        nargs="+",
        type=Path,
        default=[],
        metavar="DIR",
        help="split folders, or folds of one; for runs that have no evaluation/ yet, and one that "
        "there is must be of these data",
    )
    parser.add_argument("--sets", nargs="+", metavar="NAME", help="test sets; id*, ood* and test*")
    parser.add_argument(
        "--calibrated",
        nargs="+",
        type=Path,
        default=[],
        metavar="DIR",
        help="folders of `dp-mft evaluate --calibration`, each of the seeds of one strategy as an "
        "ensemble: also show how far to believe its predictions",
    )
    parser.add_argument("--property", help="which one, of runs that learn several")
    parser.add_argument("--unit", help="of the property, for the axes")
    parser.add_argument("--title", help="heading of the page")
    parser.add_argument("--overwrite", action="store_true", help="replace the page and its files")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> int:
    """Evaluate what is not evaluated yet, and write the page."""
    try:
        import ase  # noqa: F401, PLC0415
        import jinja2  # noqa: F401, PLC0415
        import matplotlib as mpl  # noqa: F401, PLC0415
    except ImportError as error:
        raise missing_package(f"{error}", "report") from None
    import pandas as pd  # noqa: PLC0415

    from deepmd_mft.report.folds import text_table  # noqa: PLC0415
    from deepmd_mft.report.page import write_report  # noqa: PLC0415
    from deepmd_mft.report.runs import Wanted, load_runs, unlike_seeds  # noqa: PLC0415
    from deepmd_mft.report.strategy import parse_run  # noqa: PLC0415
    from deepmd_mft.report.trust import load_trust  # noqa: PLC0415

    parsed = [parse_run(text) for text in args.runs]
    wanted = [Wanted(folder.resolve(), strategy) for folder, strategy in parsed]
    if len({one.folder.name for one in wanted}) < len(wanted):
        raise UserError("two runs have folders of the same name; rename one")
    progress = not args.quiet and sys.stderr.isatty()
    runs = load_runs(wanted, args.split, args.sets, name=args.property, progress=progress)
    page, files = write_report(
        runs,
        args.out,
        trusted=load_trust(args.calibrated, runs),
        unit=args.unit,
        title=args.title,
        overwrite=args.overwrite,
    )
    for note in [*unlike_seeds(runs), *(note for run in runs for note in run.notes)]:
        print(f"dp-mft report: {note}", file=sys.stderr)
    if not args.quiet:
        if (files / "folds.csv").is_file():
            table = text_table(pd.read_csv(files / "errors.csv"), classes=runs[0].classes)
            print(f"Mean and standard deviation over folds:\n{table}")
        print(f"wrote {page}, and its figures and numbers to {files}")
    return 0
