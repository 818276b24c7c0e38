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
        "--coverage", type=float, default=0.9, metavar="FRACTION", help="of the intervals: 0.9"
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
    if not 0 < args.coverage < 1:
        raise UserError(f"--coverage {args.coverage:g} must be between 0 and 1, 0.9 for instance")
    from deepmd_mft.checkpoints.model_file import ModelFile  # noqa: PLC0415
    from deepmd_mft.files.checksums import file_checksum  # noqa: PLC0415
    from deepmd_mft.files.staging import staged_file  # noqa: PLC0415
    from deepmd_mft.files.versions import package_versions  # noqa: PLC0415
    from deepmd_mft.structures.structure_set import StructureSet  # noqa: PLC0415
    from deepmd_mft.uncertainty.calibrate import calibrate, check_apart  # noqa: PLC0415
    from deepmd_mft.uncertainty.models import Ensemble  # noqa: PLC0415

    files = [ModelFile.parse(text, args.head) for text in args.models]
    read = [*(one.path for one in files), *args.train, *args.valid]
    with staged_file(args.out, read, overwrite=args.overwrite) as path:
        train, valid = StructureSet("train", args.train), StructureSet("valid", args.valid)
        check_apart(train, valid)
        ensemble = Ensemble(files)
        label = _labels(ensemble, valid)
        models = [
            {"path": str(one.path), "sha256": file_checksum(one.path), "weights_sha256": weights}
            for one, weights in zip(files, ensemble.checksums, strict=True)
        ]
        record = {
            "models": models,
            "train": train.record,
            "valid": valid.record,
            "coverage": args.coverage,
            "columns": ensemble.columns,
            "seed": 0,
            "packages": package_versions(),
        }
        made = calibrate(ensemble.look(train), train.ids, ensemble.look(valid), label, record)
        made.save(path)
    for name, scale in made.scales.items():
        print(f"{name:10} times {', '.join(f'{one:.4g}' for one in scale)}")
    print(f"{len(valid)} validation structures, coverage {args.coverage:g}: {args.out}")
    return 0


def _labels(ensemble: Ensemble, valid: StructureSet) -> np.ndarray:
    import numpy as np  # noqa: PLC0415

    parts = []
    for one in ensemble.outputs:
        found = valid.labels(one.name, one.columns)
        if found is None or not np.isfinite(found).all():
            raise UserError(
                f"{valid.path} has structures without the label {one.name}; give validation data "
                "where every structure has it"
            )
        parts.append(found.reshape(len(valid), one.columns))
    return np.hstack(parts)
