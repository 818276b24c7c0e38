"""What `dpa_adapt`, which comes with DeePMD-kit, makes of the same checkpoint, labels and steps.

    python beside_dpa_adapt.py --checkpoint FILE --sets DIR --auxiliary DIR --work DIR
        [--label gap] [--train train1024] [--branch GFN2] [--steps 1500] [--seeds 1 2 3]
        [--only NAME ...] [--table]

DIR of `--sets` is that of a target in the folder of `study.py` (train1024, valid, valid_tail).
Its defaults are kept but for what makes the budget equal: steps, batch size, seed. A strategy that
fails leaves its last line in DIR/failures.csv, and goes on to what a user can do by hand: the input
that it wrote, with the descriptor of the checkpoint put back. Errors on `valid` and `valid_tail`
go to DIR/validation.csv; `--table` reads the test sets, once, and writes DIR/tests.csv.

Runs that are there are not trained again.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from runs import ONE_THREAD, dp_mft

VALIDATION = ("valid", "valid_tail")
TESTS = ("id_test", "ood_test")
BATCH = 16  # that of the study's templates
PREDICTORS = ("rf", "ridge", "mlp")
POOLINGS = ("mean", "sum", "mean+std", "mean+std+max+min")
UNSEEDED = ("ridge",)
#: What dpa_adapt calls its trainings, and the file that it writes before each.
TRAININGS = {"frozen_head": "input.json", "finetune": "input.json", "mft": "mft_input.json"}
FROZEN = "frozen_sklearn"
BY_HAND = "-by-hand"
NAMES = [FROZEN, *TRAININGS, *(name + BY_HAND for name in TRAININGS)]
FIELDS = ("strategy", "seed", "set", "structures", "rmse", "mae")


def main() -> int:
    """Fit or train what is missing, and write the errors."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--branch", default="GFN2", help="force field of the checkpoint")
    parser.add_argument("--sets", type=Path, required=True, help="sets of one target")
    parser.add_argument("--auxiliary", type=Path, required=True, help="sets of the pretraining")
    parser.add_argument("--label", default="gap")
    parser.add_argument("--train", default="train1024")
    parser.add_argument("--steps", type=int, default=1500, help="of the property")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--table", action="store_true", help="read the test sets")
    args = parser.parse_args()
    for name in ("checkpoint", "sets", "auxiliary", "work"):
        setattr(args, name, getattr(args, name).resolve())
    args.work.mkdir(parents=True, exist_ok=True)
    os.chdir(args.work)  # its trainings leave lcurve.out and out.json where it is called
    os.environ.update(ONE_THREAD)
    os.environ.setdefault("XDG_CACHE_HOME", str(args.work / "cache"))
    sets = TESTS if args.table else VALIDATION
    table = Table(args.work / ("tests.csv" if args.table else "validation.csv"), FIELDS)
    if FROZEN in args.only:
        frozen(args, sets, table)
    for seed in args.seeds:
        for name in (name for name in NAMES if name in args.only and name != FROZEN):
            finish(args, name, seed, sets, table)
    return 0


class Table:
    """A CSV file that is written row by row; what is in it is not done again.

    Parameters
    ----------
    path : Path
        Of the file.
    fields : tuple of str
        Its columns; the first three, or all but the last of fewer, say which row it is.
    """

    def __init__(self, path: Path, fields: tuple[str, ...]) -> None:
        self.path, self.fields = path, fields
        self.keys = fields[: min(3, len(fields) - 1)]

    def _rows(self) -> dict[tuple[str, ...], dict[str, Any]]:
        if not self.path.is_file():
            return {}
        with self.path.open() as file:
            return {self._key(row): row for row in csv.DictReader(file)}

    def _key(self, row: dict[str, Any]) -> tuple[str, ...]:
        return tuple(str(row[key]) for key in self.keys)

    def has(self, *key: object) -> bool:
        """Return whether there is a row that begins so."""
        wanted = tuple(map(str, key))
        return any(one[: len(wanted)] == wanted for one in self._rows())

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Add rows, or put them in the place of older ones."""
        kept = self._rows() | {
            self._key(row): row for row in rows
        }  # another process may write, too
        partial = self.path.with_suffix(".partial")
        with partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.fields, lineterminator="\n")
            writer.writeheader()
            writer.writerows(kept.values())
        partial.replace(self.path)


def finish(
    args: argparse.Namespace, name: str, seed: int, sets: tuple[str, ...], table: Table
) -> None:
    """Train and measure a strategy, or keep what it says instead."""
    if table.has(name, seed):
        return
    try:
        table.add(trained(args, name, seed, sets))
    except Exception as error:  # noqa: BLE001 whatever it is, it is the result
        row = {"strategy": name, "seed": seed, "message": last_line(error)}
        Table(args.work / "failures.csv", tuple(row)).add([row])
        print(f"{name}, seed {seed}: {row['message']}", flush=True)


def frozen(args: argparse.Namespace, sets: tuple[str, ...], table: Table) -> None:
    """Fit every regressor to every pooling."""
    from dpa_adapt import DPAFineTuner, extract_descriptors  # noqa: PLC0415 slow

    systems = {
        name: plain(args.sets / name, args.work / "plain" / name, args.label)
        for name in (args.train, *sets)
    }
    for seed, pooling, predictor in product(args.seeds, POOLINGS, PREDICTORS):
        name = f"{FROZEN} {predictor} {pooling}"
        if table.has(name, seed) or (predictor in UNSEEDED and seed != args.seeds[0]):
            continue
        about = {"pretrained": str(args.checkpoint), "model_branch": args.branch}
        tuner = DPAFineTuner(**about, predictor=predictor, pooling=pooling, seed=seed)
        tuner.fit(systems[args.train], target_key=args.label)
        rows = []
        for one in sets:  # the features of fit and these are kept in its cache, predict's are not
            features = extract_descriptors(systems[one], **about, pooling=pooling)
            found = errors(tuner.predictor.predict(features), labels_of(systems[one], args.label))
            rows.append({"strategy": name, "seed": seed, "set": one, **found})
        table.add(rows)
        print(rows, flush=True)


def trained(
    args: argparse.Namespace, name: str, seed: int, sets: tuple[str, ...]
) -> list[dict[str, Any]]:
    """Train a strategy, or its input by hand, and return the errors."""
    folder = args.work / f"{name}-s{seed}"
    if name.endswith(BY_HAND):
        by_hand(args, name.removesuffix(BY_HAND), seed, folder)
        found = evaluate(args, folder, name, sets)
    else:
        tuner = train(args, name, seed, folder)
        found = {}
        for one in sets:
            result = tuner.evaluate(str(args.sets / one))
            found[one] = errors(result.predictions, result.labels)
    return [{"strategy": name, "seed": seed, "set": one, **found[one]} for one in sets]


def train(args: argparse.Namespace, name: str, seed: int, folder: Path) -> Any:
    """Train as its own page says, with the study's steps, batch size and seed."""
    from dpa_adapt import DPAFineTuner  # noqa: PLC0415 it is slow to import

    several = name == "mft"
    tuner = DPAFineTuner(
        pretrained=str(args.checkpoint),
        strategy=name,
        init_branch=args.branch,
        aux_branch=args.branch,
        property_name=args.label,
        max_steps=args.steps * (2 if several else 1),
        batch_size=BATCH,
        downstream_batch_size=BATCH,
        save_freq=args.steps,
        disp_freq=100,
        seed=seed,
        output_dir=str(folder),
    )
    auxiliary = {"aux_data": systems_in(args.auxiliary / "train")}
    tuner.fit(
        str(args.sets / args.train),
        valid_data=str(args.sets / "valid"),
        **(auxiliary if several else {}),
    )
    return tuner


def by_hand(args: argparse.Namespace, name: str, seed: int, folder: Path) -> None:
    """Train the input of a strategy with the checkpoint's own descriptor in it."""
    written = sorted(args.work.glob(f"{name}-s*/{TRAININGS[name]}"))
    if not written:
        raise FileNotFoundError(f"{name} has to be tried first; it writes its input")
    config = json.loads(written[0].read_text())  # all its seeds get the same one
    steps = config["training"]["numb_steps"]
    if (folder / f"model.ckpt-{steps}.pt").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    mend(config, branch_of(args.checkpoint, args.branch)["descriptor"], seed)
    (folder / "input.json").write_text(json.dumps(config, indent=1))
    with (folder / "train.log").open("ab") as log:
        subprocess.run(
            [
                sys.executable, "-m", "deepmd", "--pt", "train", "input.json",
                "--skip-neighbor-stat", "--finetune", str(args.checkpoint),
            ],
            cwd=folder, stdout=log, stderr=subprocess.STDOUT, check=True,
        )  # fmt: skip


def mend(config: dict[str, Any], descriptor: dict[str, Any], seed: int) -> None:
    """Put the checkpoint's descriptor into an input of dpa_adapt, and nothing else.

    What goes too is the case embedding of DPA-3.1-3M's 31 branches, which the checkpoint has not.
    """
    model = config["model"]
    home, key = (model["shared_dict"], "dpa3_descriptor") if "shared_dict" in model else (
        model, "descriptor"
    )  # fmt: skip
    trainable = home[key].get("trainable", True)
    home[key] = {**descriptor, "trainable": trainable, "seed": seed}
    for branch in model.get("model_dict", {"": model}).values():
        branch["fitting_net"].pop("dim_case_embd", None)
        branch["fitting_net"]["seed"] = seed
    config["training"]["seed"] = seed
    config["training"]["save_ckpt"] = "model.ckpt"


def evaluate(
    args: argparse.Namespace, folder: Path, name: str, sets: tuple[str, ...]
) -> dict[str, dict[str, Any]]:
    """Return the errors of the last checkpoint, as dpa_adapt takes it."""
    out = folder / f"on_{'_'.join(sets)}"
    if not out.is_dir():
        branch = ":property" if name.startswith("mft") else ""
        where = [args.sets / one for one in sets]
        dp_mft(
            "evaluate", f"{folder / 'model.ckpt.pt'}{branch}", "--split", *where, "-q", "-o", out
        )
    with (out / "metrics.csv").open() as file:
        return {
            row["set"]: {
                "structures": int(row["labelled"]),
                "rmse": float(row["rmse"]),
                "mae": float(row["mae"]),
            }
            for row in csv.DictReader(file)
        }


def plain(source: Path, out: Path, label: str) -> list[str]:
    """Write a mixed-type set as one system a formula, which is what dpa_adapt reads.

    It takes a mixed-type set too, without a word, for molecules of the first element alone.
    """
    if not out.is_dir():
        names = (source / "type_map.raw").read_text().split()
        data = source / "set.000"
        types, coords, values = (
            np.load(data / f"{name}.npy") for name in ("real_atom_types", "coord", label)
        )
        groups: dict[tuple[int, ...], list[int]] = {}
        for frame, row in enumerate(types):
            groups.setdefault(tuple(np.sort(row[row >= 0])), []).append(frame)
        partial = out.with_name(out.name + ".partial")
        for number, (formula, frames) in enumerate(sorted(groups.items())):
            system = partial / f"{number:04d}"
            (system / "set.000").mkdir(parents=True)
            (system / "nopbc").touch()
            (system / "type_map.raw").write_text("\n".join(names) + "\n")
            np.savetxt(system / "type.raw", formula, fmt="%d")
            order = [np.argsort(types[i], kind="stable")[-len(formula) :] for i in frames]
            positions = [coords[i].reshape(-1, 3)[o] for i, o in zip(frames, order, strict=True)]
            flat = np.array(positions).reshape(len(frames), -1)
            np.save(system / "set.000" / "coord.npy", flat)
            np.save(system / "set.000" / f"{label}.npy", values[frames])
        partial.rename(out)
    return systems_in(out)


def systems_in(folder: Path) -> list[str]:
    """Return the systems in a folder."""
    return sorted(str(path.parent) for path in folder.glob("*/type.raw"))


def labels_of(systems: list[str], label: str) -> np.ndarray:
    """Return the labels of systems, in their order."""
    return np.concatenate([np.load(Path(s) / "set.000" / f"{label}.npy") for s in systems])


def errors(predictions: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Return number, RMSE and MAE."""
    off = np.ravel(predictions) - np.ravel(labels)
    return {
        "structures": off.size,
        "rmse": float(np.sqrt(np.mean(off**2))),
        "mae": float(np.mean(np.abs(off))),
    }


def branch_of(checkpoint: Path, branch: str) -> dict[str, Any]:
    """Return the JSON of a branch of a checkpoint."""
    params = _params(torch.load(checkpoint, map_location="cpu", weights_only=True))
    return dict(params["model_dict"][branch])


def _params(content: dict[str, Any]) -> dict[str, Any]:
    """Return the model's JSON, which is in the content of a checkpoint."""
    found: dict[str, Any] = content.get("model", content)["_extra_state"]["model_params"]
    return found


def last_line(error: Exception) -> str:
    """Return what a user sees at the end of a failure, which may be in a file that it names."""
    text = str(error)
    named = re.search(r"See (\S+\.log)", text)
    if named and Path(named[1]).is_file():
        text = Path(named[1]).read_text()
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return f"{type(error).__name__}: {(telling or lines or [''])[-1][:300]}"


if __name__ == "__main__":
    sys.exit(main())
