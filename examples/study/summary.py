"""What the strategies of a study gain over plain fine-tuning.

    python summary.py DIR/validation.csv [DIR/tests.csv] [--figure FILE] [--json FILE]

For every number of labels and every safe strategy: the change of its RMSE against FT's, in per cent
of the mean over the seeds, for each target and on the average over the targets. A star: mean plus
and minus one standard deviation over the seeds does not overlap with FT's. The strategy is chosen
by the validation sets, by the average over targets and both sets, of those that have all of FT's
seeds; the test sets choose nothing.
`--figure` draws the last file given, a panel for each set; `--json` keeps all numbers.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd

PLAIN = "ft"
SCRATCH = "scratch"
#: Not meant to keep anything: the starting point, and FT with the steps of all branches.
NOT_SAFE = (SCRATCH, "ft-long", PLAIN)


def main() -> None:
    """Print a table for each file, and what validation chooses."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("validation", type=Path)
    parser.add_argument("tests", type=Path, nargs="?")
    parser.add_argument("--figure", type=Path, help="picture to write")
    parser.add_argument("--json", type=Path, help="file to write")
    parser.add_argument("--labels", type=int, default=128, help="of the picture (128)")
    args = parser.parse_args()
    validation = changes(pd.read_csv(args.validation))
    tests = None if args.tests is None else changes(pd.read_csv(args.tests))
    every = validation if tests is None else pd.concat([validation, tests])
    choice = {int(labels): chosen(validation, labels) for labels in validation["labels"].unique()}
    for labels, strategy in choice.items():
        for found in (validation, tests):
            if found is not None:
                print(as_text(found[found["labels"] == labels]))
        print(f"{labels} labels: validation chooses {strategy}\n")
    if args.json is not None:
        rows = json.loads(every.to_json(orient="records"))  # NaN, of one seed, is null
        args.json.write_text(json.dumps({"chosen": choice, "changes": rows}, indent=1) + "\n")
    if args.figure is not None:
        shown = validation if tests is None else tests
        draw(shown[shown["labels"] == args.labels], args.figure)


def changes(table: pd.DataFrame) -> pd.DataFrame:
    """Compare the strategies with FT.

    Parameters
    ----------
    table : DataFrame
        Rows of runs: ``target``, ``labels``, ``strategy``, ``seed``, ``set``, ``rmse``.

    Returns
    -------
    DataFrame
        For each number of labels, strategy, target and set: ``change``, the relative change of the
        mean of the seeds that both have, in per cent; their number ``seeds``; ``apart``, whether
        the intervals of one standard deviation are apart (False of one seed).
    """
    keys = ["labels", "target", "set"]
    plain = table[table["strategy"] == PLAIN][[*keys, "seed", "rmse"]]
    both = table.merge(plain, on=[*keys, "seed"], suffixes=("", "_ft"))
    groups = both.groupby(["labels", "strategy", "target", "set"], sort=False)
    found = groups.agg(
        mean=("rmse", "mean"),
        std=("rmse", "std"),
        mean_ft=("rmse_ft", "mean"),
        std_ft=("rmse_ft", "std"),
        seeds=("seed", "count"),
    ).reset_index()
    found["change"] = 100 * (found["mean"] / found["mean_ft"] - 1)
    found["apart"] = (found["mean"] - found["mean_ft"]).abs() > found["std"] + found["std_ft"]
    return found


def chosen(validation: pd.DataFrame, labels: int) -> str:
    """Return the safe strategy of least mean change, of those with all targets and seeds of FT.

    A seed is easier than another, so strategies are compared on the same ones.
    """
    mine = validation[validation["labels"] == labels]
    seeds = mine.pivot_table("seeds", "strategy", ["target", "set"])
    complete = seeds.index[(seeds == seeds.loc[PLAIN]).all(axis=1)].difference(NOT_SAFE)
    means = mine[mine["strategy"].isin(complete)].groupby("strategy")["change"].mean()
    return "nothing yet" if means.empty else str(means.idxmin())


def as_text(found: pd.DataFrame) -> str:
    """Return a table of strategies by sets and targets, and the average if it has all targets."""
    targets = found["target"].nunique()
    found = found[found["strategy"] != PLAIN]
    cells = found.assign(
        cell=[
            f"{one.change:+.1f}{'*' if one.apart else ''} ({one.seeds})"
            for one in found.itertuples()
        ]
    )
    table = cells.pivot_table("cell", ["set", "strategy"], "target", "first", sort=False)
    all_targets = found.groupby(["set", "strategy"])["change"]
    complete = all_targets.count() == targets
    table["average"] = all_targets.mean()[complete].map("{:+.1f}".format)
    return str(table.fillna("").to_string())


def draw(found: pd.DataFrame, path: Path) -> None:
    """Draw the changes of the strategies that every target has, but scratch, which is far off."""
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415

    found = found[~found["strategy"].isin((PLAIN, SCRATCH))]
    wide = found.pivot_table("change", ["set", "target"], "strategy", sort=False)
    wide = wide.dropna(axis=1)
    sets = list(dict.fromkeys(found["set"]))
    figure, axes = plt.subplots(1, len(sets), figsize=(5 * len(sets) + 1, 3.4), sharey=True)
    for axis, name in zip(axes, sets, strict=True):
        wide.loc[name].plot.bar(ax=axis, legend=False, rot=0, width=0.8)
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set_title(name)
        axis.set_xlabel("")
    axes[0].set_ylabel("change of the RMSE against FT, %")
    axes[-1].legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
