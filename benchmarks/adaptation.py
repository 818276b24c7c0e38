"""Ways of adapting one checkpoint to one property, side by side: the QM9 gap.

    python benchmarks/adaptation.py --qm9 DIR --work DIR [--seeds 1 2 3] [--only NAME ...]

Every strategy has the embedded checkpoint, the same 512 labels and the same number of property
steps (auxiliary steps come on top). Settings that a strategy needs (a weight, a decay) are scanned
with the first seed and chosen by the mean of the RMSE on `valid` and `valid_tail`, the 300 training
molecules of least density; the checkpoint of a run by `dp-mft select` on `valid`. The test sets are
read once, at the end (`--table`), when everything is chosen.

Runs go on where they stopped. `--only` trains some strategies; `--table` reads the test sets and
writes DIR/table.csv and DIR/table.md, with the drift and the Davies-Bouldin index of the first
seed's models.
"""

from __future__ import annotations

import argparse
import copy
import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from strategies import (
    EXAMPLE,
    PROPERTY_STEPS,
    checkpoint_of,
    dp_mft,
    link,
    model_of,
    prepare_run,
    prepare_training_sets,
    train,
)

LABELS = 512
REFERENCE = "pretrained/model.pt"
VALIDATION = ("valid", "valid_tail")
TESTS = ("id_test", "ood_test")
SET = {"train": "train", "id": TESTS[0], "ood": TESTS[1]}  # of the drift
SETS = {"training": "train", "validation": "valid"}  # of `dp-mft replay`

Edit = "Callable[[dict[str, Any], float], None]"


def regularized(kind: str, **options: Any) -> Edit:
    """Return the edit that adds a regulariser of some weight to the property loss."""

    def edit(config: dict[str, Any], weight: float) -> None:
        loss = config["loss_dict"]["property"] if "loss_dict" in config else config["loss"]
        loss.setdefault("regularizers", []).append({"type": kind, "weight": weight, **options})

    return edit


def rates(key: str) -> Edit:
    """Return the edit that sets an option of the learning rate `mft`."""

    def edit(config: dict[str, Any], value: float) -> None:
        native = config["learning_rate"]
        if native["type"] != "mft":
            native = {**native, "schedule": {"type": native["type"]}, "type": "mft"}
        if key == "lp_steps":
            value = round(value * PROPERTY_STEPS)
        config["learning_rate"] = {**native, key: value}

    return edit


def replay(config: dict[str, Any], _: float) -> None:
    """Give the force-field branch labels that the checkpoint made for the user's own molecules."""
    data = config["training"]["data_dict"]["GFN2"]
    for part in ("training", "validation"):
        data[f"{part}_data"]["systems"] = f"replay/{SETS[part]}"


def branch_parts(config: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what an input has for each branch: models, losses, data."""
    return [config["model"]["model_dict"], config["loss_dict"], config["training"]["data_dict"]]


def cheap_gap(config: dict[str, Any], _: float) -> None:
    """Add a branch that learns GFN2-xTB gaps of many molecules; equal shares for all branches."""
    parts = branch_parts(config)
    for part in parts:
        part["cheap_gap"] = copy.deepcopy(part["property"])
    for part, name in SETS.items():
        parts[2]["cheap_gap"][f"{part}_data"]["systems"] = f"cheap/{name}"
    config["training"]["model_prob"] = dict.fromkeys(parts[0], 1 / len(parts[0]))


def cheap_gap_alone(config: dict[str, Any], _: float) -> None:
    """Replace the force field by that branch."""
    for part in (
        config["model"]["model_dict"],
        config["loss_dict"],
        config["training"]["data_dict"],
    ):
        del part["GFN2"]
    cheap_gap(config, _)


def both(*edits: Edit) -> Edit:
    """Return an edit that makes several."""

    def edit(config: dict[str, Any], value: float) -> None:
        for one in edits:
            one(config, value)

    return edit


def spectral(weight: float) -> Edit:
    """Return spectral shrinkage with a fixed weight."""
    return lambda config, _: regularized("spectral_shrinkage", k=1)(config, weight)


#: Strategy: template, the edit that makes it, and the values that are scanned.
STRATEGIES: dict[str, tuple[str, Edit | None, tuple[float, ...]]] = {
    "scratch": ("scratch", None, ()),
    "ft": ("ft", None, ()),
    "lp": ("lp", None, ()),
    "lp-ft": ("ft", rates("lp_steps"), (0.33,)),
    "l2-sp": ("ft", regularized("l2_sp", reference=REFERENCE), (0.01, 0.1, 1.0)),
    "spectral": ("ft", regularized("spectral_shrinkage", k=1), (0.001, 0.01, 0.1)),
    "feature-drift": ("ft", regularized("feature_drift", reference=REFERENCE), (0.1, 1.0, 10.0)),
    "layer-wise": ("ft", rates("layer_decay"), (0.9, 0.7, 0.4)),
    "mft": ("mft", None, ()),
    "mft-replay": ("mft", replay, ()),
    "mft-gap": ("mft", cheap_gap_alone, ()),
    "mft-both": ("mft", cheap_gap, ()),
    # the two that were best on validation data, together
    "gap+spectral": ("mft", both(cheap_gap_alone, spectral(0.001)), ()),
}
#: Between the linear probe in the middle of LP-FT and its end.
WISE_FT = "wise-ft"


def main() -> int:
    """Train, select, choose; with --table read the test sets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--qm9", type=Path, required=True, help="folder of qm9pack's CSV files")
    parser.add_argument("--work", type=Path, required=True, help="where to train")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    names = [*STRATEGIES, WISE_FT]
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--table", action="store_true", help="read the test sets, write the table")
    args = parser.parse_args()
    prepare_training_sets(args.qm9, args.work, [LABELS])
    prepare_auxiliary_sets(args.work)
    runs: dict[str, list[Path]] = {}
    for name in args.only:
        if name == WISE_FT:
            runs[name] = [interpolated(args.work, seed) for seed in args.seeds]
            continue
        _, _, values = STRATEGIES[name]
        value = choose(args.work, name, args.seeds[0], values)
        label = name if value is None or len(values) < 2 else f"{name} {value:g}"
        runs[label] = [finish(args.work, name, value, seed) for seed in args.seeds]
    if args.table:
        write_table(args.work, runs)
    return 0


def prepare_auxiliary_sets(work: Path) -> None:
    """Have the checkpoint label shaken copies of the training molecules, and xTB the gaps of many.

    Rattled copies of the user's own molecules stand for users who hold no pretraining data. The
    cheap gaps are those of the conformers of the embedded auxiliary set.
    """
    model = str(EXAMPLE / "pretrained" / "model.pt")
    if not (work / "replay").is_dir():
        dp_mft(
            "replay", model, str(work / f"train{LABELS}"), "-o", str(work / "replay"),
            "--copies", "8", "--rattle", "0.02", "0.1",
        )  # fmt: skip
    if not (work / "cheap").is_dir():
        pool = [str(EXAMPLE / "data" / part) for part in ("aux_train", "aux_valid")]
        dp_mft(
            "replay", model, *pool, "--teacher", "gfn2", "--label", "gap", "--valid", "0.03",
            "-o", str(work / "cheap"), "--jobs", "1",
        )  # fmt: skip


def interpolated(work: Path, seed: int) -> Path:
    """Return the best of the models between the linear probe of LP-FT and its end."""
    run = finish(work, "lp-ft", STRATEGIES["lp-ft"][2][0], seed)
    out = work / f"{WISE_FT}-s{seed}"
    if not out.is_dir():
        probe = max(
            int(one.stem.rpartition("-")[2])
            for one in run.glob("model.ckpt-*.pt")
            if int(one.stem.rpartition("-")[2]) <= PROPERTY_STEPS / 3
        )
        dp_mft(
            "interpolate", str(run / f"model.ckpt-{probe}.pt"), str(run / "model.best.pt"),
            "--valid", *(str(EXAMPLE / "data" / part) for part in VALIDATION),
            "-o", str(out), "-q",
        )  # fmt: skip
    return out


def write_table(work: Path, runs: dict[str, list[Path]]) -> None:
    """Evaluate everything on the test sets and write the table, best on validation data first."""
    models = [f"{name}={model_of(one)}" for name, folders in runs.items() for one in folders]
    out = work / "tests"
    if not out.is_dir():
        sets = [str(EXAMPLE / "data" / part) for part in (*VALIDATION, *TESTS)]
        dp_mft("evaluate", *models, "--split", *sets, "-q", "-o", str(out))
    seeds = pd.read_csv(out / "seeds.csv")
    collapse = work / "collapse"
    if not collapse.is_dir():
        first = [f"{name}={model_of(folders[0])}" for name, folders in runs.items()]
        sets = [f"{name}={EXAMPLE / 'data' / folder}" for name, folder in SET.items()]
        dp_mft(
            "analyze", "collapse", "-m", f"pretrained={EXAMPLE / REFERENCE}",
            *(word for one in first for word in ("-m", one)),
            *(word for one in sets for word in ("-s", one)),
            "-o", str(collapse), "--structures", "300", "--atoms", "1000", "--per-class", "500",
            "--middle", "2", "3", "--far", "3.5", "4.5",
        )  # fmt: skip
    drift, clusters = (pd.read_csv(collapse / f"{name}.csv") for name in ("drift", "clusters"))
    table = summary(seeds, drift, clusters)
    table.to_csv(work / "table.csv", index=False)
    text = as_markdown(table)
    (work / "table.md").write_text(text)
    print(text)


def summary(seeds: pd.DataFrame, drift: pd.DataFrame, clusters: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each strategy: errors in milli-Hartree, drift, clusters."""
    rows = []
    for name, own in seeds.groupby("model", sort=False):
        rmse = own.set_index("set")
        row: dict[str, Any] = {"strategy": name, "seeds": int(own["files"].max())}
        for part in (*VALIDATION, *TESTS):
            row[part] = 1e3 * rmse.loc[part, "rmse_mean"]
            row[f"{part}_std"] = 1e3 * rmse.loc[part, "rmse_std"]
        row["chosen_by"] = np.mean([row[part] for part in VALIDATION])
        moved = drift[drift["model"] == name].set_index("set")["wasserstein"]
        row |= {f"drift_{part}": moved[part] for part in ("train", "id", "ood")}
        atoms = clusters[(clusters["model"] == name) & (clusters["kind"] == "atoms")]
        row |= {
            f"db_{space}": value
            for space, value in zip(atoms["space"], atoms["relative"], strict=True)
        }
        rows.append(row)
    return pd.DataFrame(rows).sort_values("chosen_by", ignore_index=True)


def as_markdown(table: pd.DataFrame) -> str:
    """Return the table as the documentation has it."""
    lines = [
        "| strategy | valid | valid_tail | ID | OOD | drift train / ID / OOD | DB t-SNE / raw |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for _, row in table.iterrows():
        errors = (f"{row[part]:.1f} ± {row[f'{part}_std']:.1f}" for part in (*VALIDATION, *TESTS))
        moved = " / ".join(f"{row[f'drift_{part}']:.2f}" for part in ("train", "id", "ood"))
        index = f"{row['db_t-SNE']:.2f} / {row['db_raw']:.2f}"
        lines.append("| " + " | ".join([row["strategy"], *errors, moved, index]) + " |")
    return "\n".join(lines) + "\n"


def choose(work: Path, name: str, seed: int, values: tuple[float, ...]) -> float | None:
    """Return the value with the least validation error, of one seed."""
    if len(values) < 2:
        return next(iter(values), None)
    errors = {value: validation_error(finish(work, name, value, seed)) for value in values}
    print(name, errors, flush=True)
    return min(errors, key=errors.get)


def finish(work: Path, name: str, value: float | None, seed: int) -> Path:
    """Train a run to its end and select its checkpoint; return its folder."""
    folder = prepare(work, name, value, seed)
    train(folder, checkpoint_of(folder))
    if not (folder / "model.best.pt").exists():
        branch = ["--head", "property"] if STRATEGIES[name][0] == "mft" else []
        dp_mft("select", str(folder), "-q", *branch)
    return folder


def prepare(work: Path, name: str, value: float | None, seed: int) -> Path:
    """Write the input of a run, and links to its data."""
    template, edit, _ = STRATEGIES[name]
    folder = work / "-".join([name, *([] if value is None else [f"{value:g}"]), f"s{seed}"])

    def change(config: dict[str, Any]) -> None:
        if edit is not None:
            edit(config, value)

    prepare_run(folder, template, work / f"train{LABELS}", seed, change)
    for part in ("replay", "cheap"):
        link(folder / part, work / part)
    return folder


def validation_error(folder: Path) -> float:
    """Return the mean RMSE on `valid` and `valid_tail` of the selected checkpoint."""
    out = folder / "validation"
    if not out.is_dir():
        sets = [str(EXAMPLE / "data" / part) for part in VALIDATION]
        dp_mft("evaluate", model_of(folder), "--split", *sets, "-q", "-o", str(out))
    with (out / "metrics.csv").open() as file:
        return float(np.mean([float(row["rmse"]) for row in csv.DictReader(file)]))


if __name__ == "__main__":
    sys.exit(main())
