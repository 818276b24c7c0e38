"""``dp-mft predict``: predictions of structures without labels, and how far to believe them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from deepmd_mft.cli.arguments import add_ensemble
from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    import argparse

    from deepmd_mft.uncertainty.models import Ensemble


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
        help="of `dp-mft calibrate`: for intervals or calibrated probabilities, distances from the "
        "training set, and std of one model",
    )
    parser.add_argument(
        "--std",
        choices=("ensemble", "variance", "llpr"),
        help="which standard deviation; the first of these that there is",
    )
    parser.add_argument(
        "--interval",
        choices=("absolute", "normalised", "gaussian"),
        help="split conformal of the error or of error/std, or a multiple of std: normalised",
    )
    parser.add_argument(
        "--probabilities",
        choices=("temperature", "isotonic", "raw"),
        help="of classes; temperature, or raw without a calibration",
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
    from deepmd_mft.names import GROUP  # noqa: PLC0415
    from deepmd_mft.structures.duplicates import group_numbers  # noqa: PLC0415
    from deepmd_mft.structures.structure_set import StructureSet  # noqa: PLC0415
    from deepmd_mft.uncertainty.calibrate import load_calibration  # noqa: PLC0415
    from deepmd_mft.uncertainty.models import Ensemble  # noqa: PLC0415
    from deepmd_mft.uncertainty.predictions import prediction_table  # noqa: PLC0415

    files = [ModelFile.parse(text, args.head) for text in args.models]
    read = [*(one.path for one in files), *args.on]
    read += [args.calibration] if args.calibration else []
    with staged_file(args.out, read, overwrite=args.overwrite) as path:
        ensemble = Ensemble(files)
        _check_options(args, ensemble)
        kept = load_calibration(args.calibration, ensemble.checksums) if args.calibration else None
        pool = read_pool(args.on)
        name = ", ".join(map(str, args.on))
        numbers = group_numbers(pool.labelled).tolist()
        shared = any(pool.labelled)
        labels = [{GROUP: float(number)} for number in numbers] if shared else None
        looked = ensemble.look(StructureSet.of(name, pool.structures, labels))
        options = {name: getattr(args, name) for name in ("std", "interval", "probabilities")}
        table = prediction_table(ensemble, looked, kept, **options)
        names = {
            n: whole or one for n, whole, one in zip(numbers, pool.labelled, pool.ids, strict=True)
        }
        table.insert(0, "id", list(names.values()))
        table.to_csv(path, index=False)
    for one in pool.skipped:
        print(f"dp-mft predict: left out {one.id}: {one.reason}", file=sys.stderr)
    if ensemble.num_classes and len(table):
        print(f"probabilities: {table['probabilities'].iloc[0]}")
    counted = f"{len(table)} groups of {len(pool)}" if shared else f"{len(table)}"
    print(f"{counted} structures, {len(pool.skipped)} left out: {args.out}")
    return 0


def _check_options(args: argparse.Namespace, ensemble: Ensemble) -> None:
    """Refuse options of numbers for models of classes, and the other way round."""
    wrong = ("std", "interval") if ensemble.num_classes else ("probabilities",)
    for name in wrong:
        if getattr(args, name):
            kind, has = ("classes", "probabilities") if ensemble.num_classes else ("numbers", "std")
            raise UserError(
                f"--{name} does not fit: {args.models[0]} predicts {kind} ({ensemble.columns[0]}), "
                f"which have --{has}"
            )
