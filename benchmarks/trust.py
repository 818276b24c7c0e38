"""Print how far predictions in and out of distribution can be believed, for ensembles of runs.

    python benchmarks/trust.py --ensemble FT=runs/ft-s1,runs/ft-s2 --ensemble MFT=... \
        --train DIR --valid DIR --split DIR --out FOLDER

`--split` holds the folders `id_test` and `ood_test`. The tables are those of `dp-mft calibrate` and
`dp-mft evaluate`, as a user calls them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pandas as pd


def dp_mft(*words: object) -> None:
    """Run a verb."""
    subprocess.run([sys.executable, "-m", "deepmd_mft", *map(str, words)], check=True)


def tables(name: str, models: list[str], args: argparse.Namespace) -> list[pd.DataFrame]:
    """Return scores, and how well each score tells OOD from ID."""
    kept, out = args.out / f"{name}.npz", args.out / name
    dp_mft("calibrate", *models, "--train", args.train, "--valid", args.valid, "-o", kept)
    sets = ["--split", args.split, "--sets", "id_test", "ood_test"]
    dp_mft("evaluate", *models, *sets, "--calibration", kept, "-o", out, "-q")
    found = [pd.read_csv(out / f"{table}.csv") for table in ("trust", "telling")]
    return [table.assign(models=name) for table in found]


def main() -> None:
    """Read the command line, print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ensemble", action="append", required=True, metavar="NAME=RUN,RUN")
    for name in ("--train", "--valid", "--split", "--out"):
        parser.add_argument(name, type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True)
    pairs = [text.partition("=") for text in args.ensemble]
    every = [tables(name, models.split(","), args) for name, _, models in pairs]
    for table in zip(*every, strict=True):
        print(pd.concat(table).round(4).to_string(index=False))


if __name__ == "__main__":
    main()
