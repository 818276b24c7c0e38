"""``dp-mft calibrate``: a file beside models that says how far to believe them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from deepmd_mft.cli.arguments import add_ensemble
from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    import argparse

    import numpy as np

    from deepmd_mft.structures.structure_set import StructureSet
    from deepmd_mft.uncertainty.models import Ensemble


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    add_ensemble(parser)
    parser.add_argument(
        "--train", nargs="+", type=Path, required=True, metavar="DIR", help="their training set"
    )
    parser.add_argument(
        "--valid", nargs="+", type=Path, required=True, metavar="DIR", help="validation set"
    )
    parser.add_argument(
        "--coverage", type=float, metavar="FRACTION", help="of the intervals of numbers: 0.9"
    )
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        default=Path("calibration.npz"),
        help="file to write: calibration.npz",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the file")


def run(args: argparse.Namespace) -> int:
    """Calibrate, write, print."""
    _check_coverage(args.coverage)
    from deepmd_mft.checkpoints.model_file import ModelFile  # noqa: PLC0415
    from deepmd_mft.evaluation.labels import check_units  # noqa: PLC0415
    from deepmd_mft.files.checksums import file_checksum  # noqa: PLC0415
    from deepmd_mft.files.staging import staged_file  # noqa: PLC0415
    from deepmd_mft.files.versions import package_versions  # noqa: PLC0415
    from deepmd_mft.structures.pooling import Pooling  # noqa: PLC0415
    from deepmd_mft.structures.structure_set import StructureSet  # noqa: PLC0415
    from deepmd_mft.uncertainty.calibrate import (  # noqa: PLC0415
        calibrate,
        check_apart,
        recorded_training,
    )
    from deepmd_mft.uncertainty.models import Ensemble  # noqa: PLC0415

    files = [ModelFile.parse(text, args.head) for text in args.models]
    read = [*(one.path for one in files), *args.train, *args.valid]
    with staged_file(args.out, read, overwrite=args.overwrite) as path:
        train, valid = StructureSet("train", args.train), StructureSet("valid", args.valid)
        for known in (train, *recorded_training(files, args.train)):
            check_apart(known, valid)
        ensemble = Ensemble(files)
        if ensemble.num_classes and args.coverage is not None:
            raise UserError(
                f"{args.models[0]} predicts classes ({ensemble.columns[0]}), which have "
                "probabilities and no intervals; leave out --coverage"
            )
        check_units([train, valid], [output.name for output in ensemble.outputs])
        label = _labels(ensemble, valid)
        names = Pooling(train).structures.ids
        models = [
            {"path": str(one.path), "sha256": file_checksum(one.path), "weights_sha256": weights}
            for one, weights in zip(files, ensemble.checksums, strict=True)
        ]
        record = {
            "models": models,
            "train": train.record,
            "valid": valid.record,
            "columns": ensemble.columns,
            "num_classes": ensemble.num_classes,
            "coverage": None if ensemble.num_classes else args.coverage or 0.9,
            "seed": 0,
            "packages": package_versions(),
        }
        made = calibrate(ensemble.look(train), names, ensemble.look(valid), label, record)
        made.save(path)
    for line in made.described():
        print(line)
    unit = "structures" if len(label) == len(valid) else "groups"
    print(f"{len(label)} validation {unit}: {args.out}")
    return 0


def _check_coverage(coverage: float | None) -> None:
    if coverage is not None and not 0 < coverage < 1:
        raise UserError(f"--coverage {coverage:g} must be between 0 and 1, 0.9 for instance")


def _labels(ensemble: Ensemble, valid: StructureSet) -> np.ndarray:
    import numpy as np  # noqa: PLC0415

    found = ensemble.labels(valid)
    missing = [
        name
        for name, known in zip(ensemble.columns, np.isfinite(found).T, strict=True)
        if not known.all()
    ]
    if missing:
        raise UserError(
            f"{valid.path} has structures without the label {missing[0]}; give validation data "
            "where every structure has it"
        )
    return found
