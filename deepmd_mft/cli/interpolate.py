"""``dp-mft interpolate``: models between two checkpoints, and soups of several."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    import argparse

    from deepmd_mft.checkpoints.edit.interpolate import Checkpoints, Mixture


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "models",
        nargs="+",
        metavar="CHECKPOINT",
        help="FILE[:BRANCH], or the folder of a run: A and B of one network, or any number with "
        "--soup; the property branch is meant if none is named",
    )
    parser.add_argument(
        "--alpha",
        nargs="+",
        default=None,
        metavar="ALPHA",
        help="weights (1 - ALPHA) A + ALPHA B: numbers, or START:STOP:STEP; 0:1:0.1 by default",
    )
    parser.add_argument(
        "--soup",
        action="store_true",
        help="instead, means of the checkpoints: uniform, and greedy (best first, each kept if the "
        "validation error falls)",
    )
    parser.add_argument(
        "--valid",
        nargs="+",
        type=Path,
        metavar="DIR",
        help="validation data to choose by, all together, with errors for each; by default those "
        "of the run of the checkpoints",
    )
    parser.add_argument(
        "--property",
        help="which one counts, of a head that has several; their mean by default, as in select",
    )
    parser.add_argument("--metric", help="rmse by default; for classes roc_auc or accuracy")
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        required=True,
        metavar="DIR|FILE.pt",
        help="a folder: the model that is best on validation data (model.best.pt), the errors of "
        "all, a figure; or the file of one model, with a single --alpha or the uniform --soup, for "
        "which nothing is evaluated",
    )
    parser.add_argument(
        "--all", action="store_true", help="write the other models to the folder too"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the output")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bar, no table")


def run(args: argparse.Namespace) -> int:
    """Mix, choose, write, print."""
    from deepmd_mft.checkpoints.edit.interpolate import Checkpoints, parse_alphas  # noqa: PLC0415
    from deepmd_mft.checkpoints.model_file import ModelFile  # noqa: PLC0415
    from deepmd_mft.files.staging import check_file, check_folder  # noqa: PLC0415

    if args.soup and args.alpha:
        raise UserError("--alpha is between two checkpoints, --soup is of any number; give one")
    if len(args.models) < 2 or (len(args.models) > 2 and not args.soup):
        raise UserError(
            f"{len(args.models)} checkpoint(s): give two, or any more with --soup for their means"
        )
    alphas = [] if args.soup else parse_alphas(args.alpha or ["0:1:0.1"])
    files = [ModelFile.parse(text) for text in args.models]
    read = [*(file.path for file in files), *(args.valid or [])]
    if args.out.suffix == ".pth":
        raise UserError(f"-o {args.out}: checkpoints (.pt) are written here; freeze one afterwards")
    if args.out.suffix == ".pt":
        if args.valid or args.all or len(alphas) > 1:
            raise UserError(
                f"{args.out} is the file of one model; name a folder to choose from several, or "
                "give a single --alpha without --valid"
            )
        check_file(args.out, read, overwrite=args.overwrite)
        _write_one(Checkpoints(files), alphas, args.out, args)
    else:
        check_folder(args.out, "interpolate", read, overwrite=args.overwrite)
        _write_folder(Checkpoints(files), alphas, read, args)
    return 0


def _planned(checkpoints: Checkpoints, alphas: list[float]) -> list[Mixture]:
    """Return the mixtures that need no validation data."""
    from deepmd_mft.checkpoints.edit.interpolate import Mixture  # noqa: PLC0415

    number = len(checkpoints.files)
    if not alphas:
        return [Mixture.uniform(range(number), number, "uniform")]
    return [Mixture.between(alpha) for alpha in alphas]


def _made(checkpoints: Checkpoints, mixture: Mixture) -> dict[str, Any]:
    """Say how a model came about, for its file."""
    return {
        "made_by": "dp-mft interpolate",
        "inputs": checkpoints.record,
        "mixture": mixture.record,
    }


def _write_one(
    checkpoints: Checkpoints, alphas: list[float], out: Path, args: argparse.Namespace
) -> None:
    from deepmd_mft.checkpoints.file import write_state  # noqa: PLC0415
    from deepmd_mft.files.staging import staged_file  # noqa: PLC0415

    [mixture] = _planned(checkpoints, alphas)
    read = [file.path for file in checkpoints.files]
    with staged_file(out, read, overwrite=args.overwrite) as partial:
        write_state(partial, checkpoints.mix(mixture), _made(checkpoints, mixture))
    if not args.quiet:
        print(f"{out}: {mixture.name}, a single-task checkpoint")


def _write_folder(
    checkpoints: Checkpoints, alphas: list[float], read: list[Path], args: argparse.Namespace
) -> None:
    from deepmd_mft.checkpoints.edit.interpolate import (  # noqa: PLC0415
        BEST,
        best_of,
        find_validation,
        open_validation,
        parts_of,
        score_line,
        score_soups,
        table,
    )
    from deepmd_mft.checkpoints.file import write_state  # noqa: PLC0415
    from deepmd_mft.files.records import write_record  # noqa: PLC0415
    from deepmd_mft.files.staging import staged_folder  # noqa: PLC0415

    systems = find_validation(checkpoints, args.valid)
    mixtures = _planned(checkpoints, alphas)
    record: dict[str, Any] = {"made_by": "dp-mft interpolate", "inputs": checkpoints.record}
    best = None
    read = [*read, *systems]
    with staged_folder(args.out, "interpolate", read, overwrite=args.overwrite) as folder:
        if systems:
            validation = open_validation(checkpoints, systems, folder, args.property)
            metric = validation.choose_metric(args.metric)
            parts = parts_of(args.valid or [])
            progress = not args.quiet and sys.stderr.isatty()
            if alphas:
                mixtures = score_line(checkpoints, validation, alphas, parts, progress=progress)
            else:
                mixtures = score_soups(checkpoints, validation, metric, parts, progress=progress)
            best = best_of(mixtures, metric)
            write_state(folder / BEST, checkpoints.mix(best), _made(checkpoints, best))
            record |= {
                "metric": metric,
                "about": validation.about,
                "validation": validation.structures.record,
                "best": best.name,
            }
            if alphas:
                _draw(mixtures, best, (metric, validation.about), list(parts), folder)
        if args.all or best is None:
            for one in mixtures:
                if one.alpha is None and max(one.weights) == 1:
                    continue  # a soup's ingredient lies where it was
                write_state(folder / one.file, checkpoints.mix(one), _made(checkpoints, one))
        record["models"] = [one.record for one in mixtures]
        write_record(folder, "interpolate", record)
    if args.quiet:
        return
    if best is None:
        print(f"{args.out}: {len(mixtures)} models; without validation data none is chosen")
    else:
        print(table(mixtures, metric, best))
        print(f"{metric} {record['about']}, {record['validation']['structures']} structures")
        print(f"{args.out / BEST}: {best.name}, a single-task checkpoint")


def _draw(
    mixtures: list[Mixture], best: Mixture, what: tuple[str, str], parts: list[str], folder: Path
) -> None:
    from deepmd_mft.plots.interpolation import validation_curve  # noqa: PLC0415

    metric, _ = what
    keys = {"all validation data" if parts else "validation data": metric}
    keys |= {name: f"{metric}_{name}" for name in parts}
    alphas = [float(one.alpha or 0.0) for one in mixtures]
    curves = {name: [(one.errors or {})[key] for one in mixtures] for name, key in keys.items()}
    drawing = validation_curve(alphas, curves, float(best.alpha or 0.0), what)
    (folder / f"{drawing.name}.png").write_bytes(drawing.images["light"])
