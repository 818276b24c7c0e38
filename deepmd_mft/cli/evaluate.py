"""``dp-mft evaluate``: errors of models on split folders."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    import pandas as pd

    from deepmd_mft.checkpoints.model_file import ModelFile
    from deepmd_mft.structures.structure_set import StructureSet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="[NAME=]FILE[:BRANCH]: checkpoints (.pt), frozen models (.pth), or the folder of a "
        "run; models of the same NAME are seeds (or folds) of one, their errors are averaged",
    )
    parser.add_argument(
        "--split",
        nargs="+",
        type=Path,
        required=True,
        metavar="DIR",
        help="sets of structures, or folders of them (train, id_test, ood_test, ...); of several "
        "folds each model is evaluated on the test sets of its own",
    )
    parser.add_argument(
        "--sets", nargs="+", metavar="NAME", help="which of them; all but aux* if left out"
    )
    parser.add_argument(
        "--head", help="branch of multi-task checkpoints; by default the main property's"
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="of `dp-mft calibrate` for these models, as one ensemble: also score intervals and "
        "standard deviations, or probabilities of classes, and distances (trust.csv, telling.csv, "
        "sparsification.csv and estimates.csv, or reliability.csv)",
    )
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("evaluation"), help="folder to write: evaluation"
    )
    parser.add_argument(
        "--format", choices=("csv", "parquet"), default="csv", help="of the predictions: csv"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the folder")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bar, no table")


def run(args: argparse.Namespace) -> int:
    """Evaluate, write, print."""
    from deepmd_mft.checkpoints.model_file import ModelFile  # noqa: PLC0415
    from deepmd_mft.evaluation.folds import find_folds  # noqa: PLC0415
    from deepmd_mft.evaluation.tables import evaluate, text_table  # noqa: PLC0415
    from deepmd_mft.files.checksums import file_checksum  # noqa: PLC0415
    from deepmd_mft.files.staging import staged_folder  # noqa: PLC0415
    from deepmd_mft.uncertainty.tables import write_tables  # noqa: PLC0415

    models = ModelFile.parse_all(args.models, args.head)
    sets = _sets_of_each(models, args, find_folds(args.split))
    read = [file.path for file in models]
    read += [folder for part in sets for one in part for folder in one.folders]
    read += [args.calibration] if args.calibration else []
    with staged_folder(args.out, "evaluate", read, overwrite=args.overwrite) as folder:
        found = evaluate(models, sets, progress=not args.quiet and sys.stderr.isatty())
        if args.calibration:
            trust, coverage = _trust(models, sets, args.calibration)
            found.record["calibration"] = {
                "path": str(args.calibration),
                "sha256": file_checksum(args.calibration),
                "coverage": coverage,
            }
            write_tables(trust, folder)
        found.write(folder, table_format=args.format)
    if not args.quiet:
        print(text_table(found.metrics))
        if found.has_seeds:
            print("\nMean and standard deviation (n - 1) over seeds, files of one name and set:")
            print(found.seeds().dropna(axis=1, how="all").to_string(index=False))
        if not found.folds().empty:
            print("\nMean and standard deviation (n, as MatBench) over folds, each fold once:")
            print(found.folds().dropna(axis=1, how="all").to_string(index=False))
        for table in ("trust", "telling") if args.calibration else ():
            if table in trust:
                print(f"\n{trust[table].to_string(index=False)}")
        print(f"\nPredictions, groups and intervals are in {args.out}")
    for note in found.notes:
        print(f"dp-mft evaluate: {note}", file=sys.stderr)
    return 1 if found.has_nan else 0


def _trust(
    models: list[ModelFile], sets: list[list[StructureSet]], path: Path
) -> tuple[dict[str, pd.DataFrame], float | None]:
    """Return the tables of scores of the ensemble of all models, and the intervals' coverage."""
    from deepmd_mft.errors import UserError  # noqa: PLC0415
    from deepmd_mft.uncertainty.calibrate import load_calibration  # noqa: PLC0415
    from deepmd_mft.uncertainty.models import Ensemble  # noqa: PLC0415
    from deepmd_mft.uncertainty.tables import trust_tables  # noqa: PLC0415

    if any(one is not sets[0] for one in sets):
        raise UserError("--calibration is of one split; give the models and the folder of one fold")
    ensemble = Ensemble(models)
    kept = load_calibration(path, ensemble.checksums)
    return trust_tables(ensemble, kept, sets[0]), kept.record["coverage"]


def _sets_of_each(
    models: list[ModelFile], args: argparse.Namespace, folds: dict[str, Path]
) -> list[list[StructureSet]]:
    """Return the sets that each model is evaluated on: all, or those of its own fold."""
    from deepmd_mft.checkpoints.run import folder_of_run  # noqa: PLC0415
    from deepmd_mft.evaluation.folds import match_folds, sets_of_fold  # noqa: PLC0415
    from deepmd_mft.structures.structure_set import find_sets  # noqa: PLC0415

    if not folds:
        return [find_sets(args.split, args.sets)] * len(models)
    own = match_folds([folder_of_run(model.path) for model in models], folds)
    known = {name: sets_of_fold(name, folds[name], args.sets) for name in dict.fromkeys(own)}
    return [known[name] for name in own]
