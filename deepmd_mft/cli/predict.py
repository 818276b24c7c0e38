"""``dp-mft predict``: predictions of structures without labels, and how far to believe them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from deepmd_mft.cli.arguments import add_ensemble

if TYPE_CHECKING:
    import argparse

    import pandas as pd

    from deepmd_mft.uncertainty.calibrate import Calibration
    from deepmd_mft.uncertainty.estimate import Looked


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    add_ensemble(parser)
    parser.add_argument(
        "--on",
        nargs="+",
        type=Path,
        required=True,
        metavar="STRUCTURES",
        help="deepmd-kit systems, files that ase reads, tables of SMILES; labels are not looked at",
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="of `dp-mft calibrate`: for intervals, distances from the training set, and std of "
        "one model",
    )
    parser.add_argument(
        "--std",
        choices=("ensemble", "variance", "llpr"),
        help="which standard deviation; the first of these that there is",
    )
    parser.add_argument(
        "--interval",
        choices=("absolute", "normalised", "gaussian"),
        default="normalised",
        help="split conformal of the error or of error/std, or a multiple of std: normalised",
    )
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        default=Path("predictions.csv"),
        help="table to write: predictions.csv",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the file")


def run(args: argparse.Namespace) -> int:
    """Predict, write, print."""
    from deepmd_mft.checkpoints.model_file import ModelFile  # noqa: PLC0415
    from deepmd_mft.data.pool import read_pool  # noqa: PLC0415
    from deepmd_mft.files.staging import staged_file  # noqa: PLC0415
    from deepmd_mft.structures.structure_set import StructureSet  # noqa: PLC0415
    from deepmd_mft.uncertainty.calibrate import Calibration  # noqa: PLC0415
    from deepmd_mft.uncertainty.models import Ensemble  # noqa: PLC0415

    files = [ModelFile.parse(text, args.head) for text in args.models]
    read = [*(one.path for one in files), *args.on]
    read += [args.calibration] if args.calibration else []
    with staged_file(args.out, read, overwrite=args.overwrite) as path:
        ensemble = Ensemble(files)
        kept = Calibration.load(args.calibration, ensemble.checksums) if args.calibration else None
        pool = read_pool(args.on)
        name = ", ".join(map(str, args.on))
        looked = ensemble.look(StructureSet.of(name, pool.structures))
        table = _table(looked, ensemble.columns, kept, args)
        table.insert(0, "id", pool.ids)
        table.to_csv(path, index=False)
    for one in pool.skipped:
        print(f"dp-mft predict: left out {one.id}: {one.reason}", file=sys.stderr)
    print(f"{len(table)} structures, {len(pool.skipped)} left out: {args.out}")
    return 0


def _table(
    looked: Looked, columns: list[str], kept: Calibration | None, args: argparse.Namespace
) -> pd.DataFrame:
    """Return a row for every structure."""
    import pandas as pd  # noqa: PLC0415

    from deepmd_mft.errors import UserError  # noqa: PLC0415
    from deepmd_mft.uncertainty.calibrate import why_not  # noqa: PLC0415
    from deepmd_mft.uncertainty.estimate import (  # noqa: PLC0415
        DISTANCES,
        STDS,
        nearest,
        usable_stds,
    )

    usable = usable_stds(looked, has_reference=kept is not None)
    std = args.std or next(iter(usable), None)
    if args.std and args.std not in usable:
        raise UserError(f"no {args.std} here: {why_not(args.std, len(looked.predictions))}")
    found: dict[str, object] = {}
    for number, column in enumerate(columns):
        found[column] = looked.mean[:, number]
        if kept is not None and std is not None:
            low, high = kept.interval(looked, std, args.interval)
            found[f"{column}_std"] = kept.std(looked, std)[:, number]
            found[f"{column}_low"], found[f"{column}_high"] = low[:, number], high[:, number]
        elif std is not None:
            found[f"{column}_std"] = STDS[std](looked, None)[:, number]
    if kept is not None:
        for name, distance in DISTANCES.items():
            found[f"ood_{name}"] = distance(looked, kept.reference)
        found["nearest_training_structure"] = nearest(looked, kept.reference)
    return pd.DataFrame(found)
