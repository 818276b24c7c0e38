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

import pandas as pd

from deepmd_mft.structures.structure_set import StructureSet
from deepmd_mft.uncertainty.score import SCORES, auroc, coverage, width

DISTANCES = ("mahalanobis", "knn", "structural")


def dp_mft(*words: object) -> None:
    """Run a verb."""
    subprocess.run([sys.executable, "-m", "deepmd_mft", *map(str, words)], check=True)


def predictions(
    models: list[str], kept: Path, where: Path, std: str, interval: str, ood: str, out: Path
) -> pd.DataFrame:
    """Return the table of `dp-mft predict`."""
    choice = ["--std", std, "--interval", interval, "--ood", ood]
    dp_mft("predict", *models, "--on", where, "--calibration", kept, *choice, "-o", out)
    return pd.read_csv(out)


def table(name: str, models: list[str], args: argparse.Namespace) -> tuple[list[dict], list[dict]]:
    """Return scores of each standard deviation and set, and AUROC of each score."""
    folder = args.out / name
    folder.mkdir(parents=True)
    kept = folder / "calibration.npz"
    dp_mft("calibrate", *models, "--train", args.train, "--valid", args.valid, "-o", kept)
    rows, told = [], []
    labels = {
        part: StructureSet(part, [path]).label(args.label)
        for part, path in (("ID", args.id), ("OOD", args.ood))
    }
    scores: dict[str, dict[str, pd.Series]] = {}
    # Three pairs are enough for all: columns of std, interval and distance do not depend on others.
    pairs = [("ensemble", "absolute"), ("ensemble", "normalised"), ("llpr", "normalised")]
    for (std, interval), ood in zip(pairs, DISTANCES, strict=True):
        for part, where in (("ID", args.id), ("OOD", args.ood)):
            out = folder / f"{part}-{std}-{interval}.csv"
            found = predictions(models, kept, where, std, interval, ood, out)
            label, key = labels[part], args.label
            low, high = found[f"{key}_low"].to_numpy(), found[f"{key}_high"].to_numpy()
            error, sigma = found[key].to_numpy() - label, found[f"{key}_std"].to_numpy()
            measured = {name: score(error, sigma) for name, score in SCORES.items()}
            cover = {"coverage": coverage(label, low, high), "width": width(low, high)}
            rmse = {"n": len(label), "rmse": float((error**2).mean() ** 0.5)}
            rows.append(
                {"models": name, "std": std, "interval": interval, "set": part}
                | rmse
                | cover
                | measured
            )
            scores.setdefault(std, {})[part] = found[f"{key}_std"]
            scores.setdefault(ood, {})[part] = found["ood_score"]
    for score, parts in scores.items():
        told.append({"models": name, "score": score, "auroc": auroc(parts["ID"], parts["OOD"])})
    return rows, told


def main() -> None:
    """Read the command line, print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ensemble", action="append", required=True, metavar="NAME=RUN,RUN")
    for name in ("--train", "--valid", "--id", "--ood", "--out"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--label", required=True)
    args = parser.parse_args()
    rows, told = [], []
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
