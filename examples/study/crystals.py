"""Ways of adapting one pretrained model to properties of crystals (MatBench), fold by fold.

    python crystals.py --matbench DIR --checkpoint FILE --auxiliary DIR --work DIR
        [--targets jdft2d dielectric] [--folds fold_00 ...] [--seeds 1 2]
        [--only scratch ft lp mft] [--steps N] [--prepare]

Converts and splits the data, writes a plan of the folds (`dp-mft plan`) and trains what is missing
(`make`): every strategy has the same labels and the same number of property steps, auxiliary steps
come on top, and each run's checkpoint is chosen on the fold's validation set. The errors on
validation and test sets go to DIR/crystals.csv, and means and spreads are printed. `--prepare`
stops before the training.

jdft2d has MatBench's five folds; of the dielectric constants' 50 clusters left out (`loco`) those
are taken whose crystals are not in the auxiliary set. Start it again to go on.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from beside_dpa_adapt import branch_of
from runs import ONE_THREAD, TEMPLATES, dp_mft

FORCE_FIELD = "CHGNet"
STRATEGIES = ("scratch", "ft", "lp", "mft")
BATCH = "auto:128"
FIELDS = ["target", "fold", "strategy", "seed", "set", "labelled", "rmse", "mae"]


@dataclass(frozen=True)
class Target:
    """A data set of MatBench, its label and its folds.

    Parameters
    ----------
    label : str
        As `dp-mft convert` calls it.
    split : tuple of str
        Words of `dp-mft split`.
    folds : tuple of str
        Those that are run if no others are asked for.
    steps : int
        Of the property.
    save : int
        Steps between the checkpoints of which one is chosen.
    """

    label: str
    split: tuple[str, ...]
    folds: tuple[str, ...]
    steps: int
    save: int


TARGETS = {
    "jdft2d": Target(
        "exfoliation_en",
        ("matbench", "--target", "exfoliation_en"),
        tuple(f"fold_{i:02d}" for i in range(5)),
        500,
        100,
    ),
    "dielectric": Target(
        "n",
        ("loco", "--clusters", "50", "--id-test", "0.1", "--write", "5"),
        ("fold_05",),
        1500,
        500,
    ),
}


def main() -> int:
    """Prepare, train, collect."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--matbench", type=Path, required=True, help="folder of its .json.gz files")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument(
        "--auxiliary", type=Path, required=True, help="sets train and valid of its pretraining"
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--folds", nargs="+", help="names of folders; by default those of a target")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--only", nargs="+", choices=STRATEGIES, default=list(STRATEGIES))
    parser.add_argument("--steps", type=int, help="of the property")
    parser.add_argument("--prepare", action="store_true", help="write the plan, train nothing")
    args = parser.parse_args()
    for name in ("matbench", "checkpoint", "auxiliary", "work"):
        setattr(args, name, getattr(args, name).resolve())
    for target in args.targets:
        prepare(args, target)
        if not args.prepare:
            study = args.work / target / "study"
            subprocess.run(
                ["make", "-C", str(study), "-k"],  # noqa: S607 the user's make
                env={**os.environ, **ONE_THREAD},
                check=False,  # a run that fails is missing in the table
            )
    table = collect(args.work)
    if not table.empty:
        table.to_csv(args.work / "crystals.csv", index=False)
        print(summary(table).to_string(float_format=lambda value: f"{value:.4g}"))
    return 0


def prepare(args: argparse.Namespace, name: str) -> None:
    """Convert, split, and write the plan of the folds, strategies and seeds."""
    target, folder = TARGETS[name], args.work / name
    if not (folder / "all").is_dir():
        dp_mft("convert", args.matbench / f"matbench_{name}.json.gz", folder / "all")
    if not (folder / "split").is_dir():
        dp_mft("split", *target.split, folder / "all", folder / "split")
    branch = branch_of(args.checkpoint, FORCE_FIELD)
    templates = {one: folder / "templates" / f"{one}.json" for one in args.only}
    for strategy, path in templates.items():
        config = template_of(strategy, target, branch, args.steps or target.steps)
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(config, indent=1))
    words: list[object] = [
        "plan", *(folder / "split" / fold for fold in args.folds or target.folds),
        "--template", *(f"{one}={path}" for one, path in templates.items()),
        "--checkpoint", args.checkpoint, "--seeds", *args.seeds,
        "--property", target.label, "--batch-size", BATCH, "-o", folder / "study",
    ]  # fmt: skip
    if "mft" in templates:
        words += ["--aux-train", f"{FORCE_FIELD}={args.auxiliary / 'train'}"]
        words += ["--aux-valid", f"{FORCE_FIELD}={args.auxiliary / 'valid'}"]
        words += ["--aux-batch-size", f"{FORCE_FIELD}={BATCH}"]
    dp_mft(*words, quiet=True)


def template_of(
    strategy: str, target: Target, pretrained: dict[str, Any], steps: int
) -> dict[str, Any]:
    """Return the small template of a strategy, for a checkpoint with this force field.

    `dp-mft plan` takes network and elements from the checkpoint, but not for runs from scratch.
    Auxiliary steps come on top.
    """
    config = json.loads((TEMPLATES / f"input_{strategy}.json").read_text())
    if strategy == "mft":
        old = next(one for one in config["model"]["model_dict"] if one != "property")
        for part in (
            config["model"]["model_dict"],
            config["loss_dict"],
            config["training"]["model_prob"],
            config["training"]["data_dict"],
        ):
            part[FORCE_FIELD] = part.pop(old)
        config["model"]["model_dict"][FORCE_FIELD]["finetune_head"] = FORCE_FIELD
        branch, loss = config["model"]["model_dict"]["property"], config["loss_dict"]["property"]
    else:
        branch, loss = config["model"], config["loss"]
    if strategy == "scratch":
        branch |= {key: pretrained[key] for key in ("type_map", "descriptor")}
    branch["fitting_net"]["property_name"] = loss["property_name"] = target.label
    share = config["training"].get("model_prob", {"property": 1.0})["property"]
    config["training"] |= {"numb_steps": round(steps / share), "save_freq": target.save}
    found: dict[str, Any] = config
    return found


def collect(work: Path) -> pd.DataFrame:
    """Return the errors of every run that is complete, on validation and test sets."""
    rows = []
    for metrics in sorted(work.glob("*/study/*/evaluation/metrics.csv")):
        run = metrics.parents[1]
        plan = json.loads((run.parent / "plan.json").read_text())
        planned = plan["runs"][run.name]
        fold = planned["fold"] or Path(plan["split"][0]).name  # a plan of one fold names none
        with metrics.open() as file:
            rows += [
                {
                    "target": run.parents[1].name,
                    "fold": fold,
                    "strategy": planned["strategy"],
                    "seed": planned["seed"],
                    **{key: row[key] for key in FIELDS if key in row},
                }
                for row in csv.DictReader(file)
                if row["set"] != "train"
            ]
    table = pd.DataFrame(rows, columns=FIELDS)
    return table.astype({"labelled": int, "rmse": float, "mae": float})


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return mean and spread of the MAE; seeds of a fold are averaged first, so folds count once.

    The spread is that over folds, or over seeds where there is one fold.
    """
    rows = []
    for keys, part in table.groupby(["target", "set", "strategy"], sort=False):
        folds = part.groupby("fold")["mae"].mean()
        over = folds if len(folds) > 1 else part["mae"]
        rows.append(
            {
                **dict(zip(("target", "set", "strategy"), keys, strict=True)),
                "folds": len(folds),
                "seeds": part["seed"].nunique(),
                "mae": folds.mean(),
                "spread": over.std() if len(over) > 1 else float("nan"),
            }
        )
    return pd.DataFrame(rows).set_index(["target", "set", "strategy"])


if __name__ == "__main__":
    sys.exit(main())
