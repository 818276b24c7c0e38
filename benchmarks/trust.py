"""Print how far predictions in and out of distribution can be believed, for runs of two kinds.

    python benchmarks/trust.py --ensemble FT=runs/ft-s1,runs/ft-s2 --ensemble MFT=... \
        --train DIR --valid DIR --id DIR --ood DIR --label gap --out FOLDER

The predictions come from `dp-mft calibrate` and `dp-mft predict`, as a user calls them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from deepmd_mft.structures.structure_set import StructureSet
from deepmd_mft.uncertainty.score import SCORES, auroc, coverage, width

STDS = ("ensemble", "llpr")


def dp_mft(*words: object) -> None:
    """Run a verb."""
    subprocess.run([sys.executable, "-m", "deepmd_mft", *map(str, words)], check=True)


def predictions(models: list[str], kept: Path, where: Path, std: str, out: Path) -> pd.DataFrame:
    """Return the table of `dp-mft predict`."""
    dp_mft("predict", *models, "--on", where, "--calibration", kept, "--std", std, "-o", out)
    return pd.read_csv(out)


def table(
    name: str, models: list[str], args: argparse.Namespace
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return scores of each standard deviation and set, and AUROC of each score."""
    folder = args.out / name
    folder.mkdir(parents=True)
    kept = folder / "calibration.npz"
    dp_mft("calibrate", *models, "--train", args.train, "--valid", args.valid, "-o", kept)
    rows = []
    scores: dict[str, list[pd.Series]] = {}
    for std in STDS:
        for part, where in (("ID", args.id), ("OOD", args.ood)):
            found = predictions(models, kept, where, std, folder / f"{part}-{std}.csv")
            label, key = StructureSet(part, [where]).label(args.label), args.label
            low, high = found[f"{key}_low"].to_numpy(), found[f"{key}_high"].to_numpy()
            error, sigma = found[key].to_numpy() - label, found[f"{key}_std"].to_numpy()
            row = {"models": name, "std": std, "set": part, "n": len(label)}
            row |= {"rmse": float((error**2).mean() ** 0.5)}
            row |= {"coverage": coverage(label, low, high), "width": width(low, high)}
            rows.append(row | {one: score(error, sigma) for one, score in SCORES.items()})
            scores.setdefault(std, []).append(found[f"{key}_std"])
            if std == STDS[0]:
                for column in found.filter(like="ood_"):
                    scores.setdefault(column, []).append(found[column])
    told = [
        {"models": name, "score": score, "auroc": auroc(inside, outside)}
        for score, (inside, outside) in scores.items()
    ]
    return rows, told


def main() -> None:
    """Read the command line, print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ensemble", action="append", required=True, metavar="NAME=RUN,RUN")
    for name in ("--train", "--valid", "--id", "--ood", "--out"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--label", required=True)
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    told: list[dict[str, Any]] = []
    for text in args.ensemble:
        name, _, models = text.partition("=")
        more, which = table(name, models.split(","), args)
        rows += more
        told += which
    for found, file in ((rows, "scores.csv"), (told, "auroc.csv")):
        made = pd.DataFrame(found)
        made.to_csv(args.out / file, index=False)
        print(made.round(4).to_string(index=False))


if __name__ == "__main__":
    main()
