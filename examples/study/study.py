"""Ways of adapting one pretrained model to properties of QM9, in and out of distribution.

    python study.py --qm9 DIR --checkpoint FILE --auxiliary DIR --work DIR
        [--targets gap homo ...] [--labels 1024 ...] [--seeds 1 2 3] [--only NAME ...]
        [--steps 1500] [--jobs 1] [--table]

Every strategy has the same labels and the same number of property steps; auxiliary steps come on
top, and ft-long has as many steps as mft-cheap in all. The checkpoint of a run is chosen by `dp-mft
select` on `valid`. Errors on `valid` and `valid_tail`, the training molecules of least density, are
printed and kept in DIR/validation.csv; whatever is chosen is chosen by them. `--table` reads the
test sets, once, when everything is chosen, and keeps their errors in DIR/tests.csv. Both files keep
the rows of earlier calls; `summary.py` compares them with FT.

Runs go on where they stopped: start the same command again.
"""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from runs import CHEAP_FOR, dp_mft, model_of, train, write_input
from sets import COLUMNS, TESTS, VALIDATION, prepare

#: Branch of the checkpoint that learned energies and forces.
FORCE_FIELD = "GFN2"
SHARE = 0.5  # of the property, beside the force field
CHEAP_SHARE = 0.2  # of the property, beside cheap labels: better than 0.5 on validation data
LP_STEPS = 0.33  # of LP-FT, frozen
WISE_FT = "wise-ft"
RUN = ["target", "labels", "strategy", "seed", "set"]  # of a row


@dataclass(frozen=True)
class Strategy:
    """A template, and the auxiliary branches it gets.

    Parameters
    ----------
    template : str
        scratch, ft, lp or mft.
    force_field : bool
        Whether the force field is an auxiliary branch.
    cheap : bool
        Whether the cheap labels that are related to the target are.
    share : float
        Of the property branch in the steps.
    own : bool
        Whether the force-field branch learns the checkpoint's labels of the user's own molecules.
    lp_steps : float
        Part of the steps in which only the head learns.
    lambda_reg : float
        Weight of the force field's loss.
    longer : float
        Factor of the number of steps.
    """

    template: str
    force_field: bool = False
    cheap: bool = False
    share: float = 1.0
    own: bool = False
    lp_steps: float = 0.0
    lambda_reg: float = 1.0
    longer: float = 1.0

    def branches(self, target: str) -> list[str]:
        """Return the names of the auxiliary branches for a target."""
        return [FORCE_FIELD] * self.force_field + [CHEAP_FOR[target]] * self.cheap

    def edit(self, config: dict[str, Any]) -> None:
        """Set what no template has."""
        if self.lp_steps:
            native = config["learning_rate"]
            steps = round(self.lp_steps * config["training"]["numb_steps"])
            schedule = {"type": native["type"]}
            config["learning_rate"] = {
                **native, "type": "mft", "schedule": schedule, "lp_steps": steps
            }  # fmt: skip
        if self.force_field:
            config["loss_dict"][FORCE_FIELD]["lambda_reg"] = self.lambda_reg


STRATEGIES = {
    "scratch": Strategy("scratch"),
    "ft": Strategy("ft"),
    "ft-long": Strategy("ft", longer=1 / CHEAP_SHARE),
    "lp": Strategy("lp"),
    "lp-ft": Strategy("ft", lp_steps=LP_STEPS),
    "mft": Strategy("mft", force_field=True, share=SHARE),
    "mft-cheap": Strategy("mft", cheap=True, share=CHEAP_SHARE),
    "mft-both": Strategy("mft", force_field=True, cheap=True, share=CHEAP_SHARE),
    "mft-replay": Strategy("mft", force_field=True, share=SHARE, own=True),
}
#: Other shares, and weights of the force field, to be compared on validation data.
SCANS = {
    "mft-cheap-0.5": Strategy("mft", cheap=True, share=0.5),
    "mft-cheap-0.1": Strategy("mft", cheap=True, share=0.1),
    "mft-0.2": Strategy("mft", force_field=True, share=0.2),
    "mft-lambda-0.1": Strategy("mft", force_field=True, share=SHARE, lambda_reg=0.1),
    "mft-lambda-0.01": Strategy("mft", force_field=True, share=SHARE, lambda_reg=0.01),
}
KNOWN = STRATEGIES | SCANS


def main() -> int:
    """Train, select, measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--qm9", type=Path, required=True, help="folder of qm9pack's CSV files")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument(
        "--auxiliary", type=Path, required=True, help="sets train and valid of its pretraining"
    )
    parser.add_argument(
        "--pretraining", type=Path, help="CSV of the QM9 molecules (Index) in its pretraining"
    )
    parser.add_argument("--work", type=Path, required=True, help="where to train")
    parser.add_argument("--targets", nargs="+", choices=COLUMNS, default=list(COLUMNS))
    parser.add_argument("--labels", type=int, nargs="+", default=[1024])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument(
        "--only", nargs="+", choices=[*KNOWN, WISE_FT], default=[*STRATEGIES, WISE_FT]
    )
    parser.add_argument("--steps", type=int, default=1500, help="of the property branch")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time, a thread each")
    parser.add_argument("--table", action="store_true", help="read the test sets")
    args = parser.parse_args()
    for name in ("checkpoint", "auxiliary", "work"):
        setattr(args, name, getattr(args, name).resolve())
    runs = [
        (target, labels, name, seed)
        for seed in args.seeds
        for target in args.targets
        for labels in args.labels
        for name in args.only
    ]
    for target in args.targets:
        for labels in args.labels:
            prepare(args.qm9, args.work, target, labels, args.pretraining)
            if any(KNOWN[name].own for name in args.only if name in KNOWN):
                replay(args, target, labels)
    trained = [run for run in runs if run[2] != WISE_FT]
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(lambda run: finish(args, *run), trained))
    for run in runs:
        if run[2] == WISE_FT:
            interpolate(args, *run)
    print_table(args, runs, VALIDATION, "validation")
    if args.table:
        print_table(args, runs, TESTS, "tests")
    return 0


def folder_of(args: argparse.Namespace, target: str, labels: int, name: str, seed: int) -> Path:
    """Return where a run is."""
    return Path(args.work / f"{target}-{labels}" / f"{name}-s{seed}")


def replay(args: argparse.Namespace, target: str, labels: int) -> None:
    """Have the checkpoint label shaken copies of the training molecules."""
    out = args.work / f"{target}-{labels}" / "replay"
    if not out.is_dir():
        out.parent.mkdir(parents=True, exist_ok=True)
        dp_mft(
            "replay", f"{args.checkpoint}:{FORCE_FIELD}", args.work / target / f"train{labels}",
            "-o", out, "--copies", "4", "--rattle", "0.02", "0.1",
        )  # fmt: skip


def finish(args: argparse.Namespace, target: str, labels: int, name: str, seed: int) -> None:
    """Train a run to its end, and select its checkpoint."""
    folder, strategy = folder_of(args, target, labels, name, seed), KNOWN[name]
    if (folder / "model.best.pt").is_file():
        return
    sets = args.work / target
    source = folder.parent / "replay" if strategy.own else args.auxiliary
    branches = {
        one: {"train": source / "train", "valid": source / "valid"}
        for one in strategy.branches(target)
    }
    write_input(
        folder,
        strategy.template,
        target,
        args.checkpoint,
        {"train": sets / f"train{labels}", "valid": sets / "valid"},
        auxiliary=branches,
        share=strategy.share,
        steps=round(args.steps * strategy.longer),
        seed=seed,
        edit=strategy.edit,
    )
    train(folder, None if strategy.template == "scratch" else args.checkpoint)
    dp_mft("select", folder, "-q", *(["--head", "property"] if branches else []), quiet=True)


def interpolate(args: argparse.Namespace, target: str, labels: int, _: str, seed: int) -> None:
    """Take the best of the models between the linear probe and the best of the others."""
    out = folder_of(args, target, labels, WISE_FT, seed)
    if out.is_dir():
        return
    others = [n for n in args.only if n not in ("scratch", "lp", WISE_FT)]
    probe = folder_of(args, target, labels, "lp", seed)
    best = min(
        (folder_of(args, target, labels, name, seed) for name in others),
        key=lambda folder: errors(args, target, folder, VALIDATION)["rmse"].mean(),
    )
    dp_mft(
        "interpolate", model_of(probe), model_of(best),
        "--valid", *(args.work / target / name for name in VALIDATION), "-o", out, "-q",
    )  # fmt: skip


def errors(
    args: argparse.Namespace, target: str, folder: Path, sets: tuple[str, ...]
) -> pd.DataFrame:
    """Return the errors of the chosen model of a run, a row for each set.

    Those of the test sets are where `dp-mft report` looks for them.
    """
    out = folder / ("evaluation" if sets is TESTS else f"on_{'_'.join(sets)}")
    if not out.is_dir():
        where = [args.work / target / name for name in sets]
        dp_mft("evaluate", model_of(folder), "--split", *where, "-q", "-o", out)
    return pd.read_csv(out / "metrics.csv")


def print_table(
    args: argparse.Namespace,
    runs: list[tuple[str, int, str, int]],
    sets: tuple[str, ...],
    name: str,
) -> None:
    """Write the errors of every run, and print their means and spreads over the seeds."""
    rows = [
        {"target": run[0], "labels": run[1], "strategy": run[2], "seed": run[3], **row}
        for run in runs
        for row in errors(args, run[0], folder_of(args, *run), sets)[
            ["set", "labelled", "rmse", "mae"]
        ].to_dict("records")
    ]
    table = pd.DataFrame(rows)
    keep(table, args.work / f"{name}.csv")
    keys = ["target", "labels", "strategy"]
    found = table.pivot_table("rmse", keys, "set", ["mean", "std", "count"], sort=False)
    print(found.to_string(float_format=lambda value: f"{value:.4g}"))


def keep(table: pd.DataFrame, path: Path) -> None:
    """Put rows into a CSV file in place of older ones of the same runs."""
    if path.is_file():
        table = pd.concat([pd.read_csv(path), table])
    table = table.drop_duplicates(RUN, keep="last").sort_values(RUN[:-1], kind="stable")
    new = path.with_name(f"{path.name}.{os.getpid()}")
    table.to_csv(new, index=False)
    new.replace(path)


if __name__ == "__main__":
    sys.exit(main())
