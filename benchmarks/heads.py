"""Heads made for a property against plain ones, on QM9 and MatBench dielectric.

    python benchmarks/heads.py --qm9 DIR --matbench DIR --work DIR [--only r2,mu,dielectric]

QM9 (qm9pack's CSV files): <R^2> with mft_spatial_extent against the sum readout, mu with
mft_dipole_norm against the mean readout; BOOM splits of each target, the embedded pretrained
network, the same data, steps and settings for both. MatBench dielectric: rows with an element that
is absent from training, with the bias of mft_property (element, mean) against deepmd-kit's own
property head (distinguish_types: true), trained from scratch.

Runs go on where they stopped; the table is printed at the end and kept in DIR/heads.md. Settings
were fixed beforehand; the test sets are read once, at the last step.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "qm9_gap"
COLUMNS = {"r2": "R2_bohr2", "mu": "Dipole_debye"}
UNITS = {"r2": "a0^2", "mu": "D", "n": "1"}
SIZES = {"train": 512, "valid": 200, "id_test": 1000, "ood_test": 1000}
STEPS = 1500
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "DP_INTRA_OP_PARALLELISM_THREADS": "1",
    "DP_INTER_OP_PARALLELISM_THREADS": "1",
    "NUM_WORKERS": "0",
}
HEADS: dict[str, dict[str, dict[str, Any]]] = {
    "r2": {
        "mft_spatial_extent": {"type": "mft_spatial_extent"},
        "mft_property, sum": {"type": "mft_property", "intensive": False},
    },
    "mu": {
        "mft_dipole_norm": {"type": "mft_dipole_norm"},
        "mft_property, mean": {"type": "mft_property", "intensive": True},
    },
}
UNSEEN = ["Br", "Te", "W", "Mg"]  # held out of the dielectric training set
DIELECTRIC_HEADS: dict[str, dict[str, Any]] = {
    "mft_property, bias element": {"type": "mft_property", "bias": "element"},
    "mft_property, bias mean": {"type": "mft_property", "bias": "mean"},
    "property, distinguish_types: true": {"type": "property", "distinguish_types": True},
}
CRYSTAL_STEPS = 1200


def main() -> int:
    """Prepare, train, test, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--qm9", type=Path, help="folder of qm9pack's CSV files")
    parser.add_argument("--matbench", type=Path, help="folder of matbench_dielectric.json.gz")
    parser.add_argument("--work", type=Path, required=True, help="where to train")
    parser.add_argument("--only", default="r2,mu,dielectric", help="targets, by commas")
    args = parser.parse_args()
    lines = [
        "| target | head | test set | RMSE | MAE | unit |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for target in args.only.split(","):
        if target == "dielectric":
            name, sets = "n", ["id_test", "ood_test"]
            folder = args.work / "dielectric"
            prepare_dielectric(args.matbench, folder)
            inputs = {head: crystal_input(folder, net) for head, net in DIELECTRIC_HEADS.items()}
        else:
            name, sets = target, ["id_test", "ood_test"]
            folder = args.work / target
            prepare_qm9(args.qm9, target, folder)
            inputs = {head: qm9_input(target, net) for head, net in HEADS[target].items()}
        for head, config in inputs.items():
            errors = train_and_test(folder, head, config, sets)
            for test_set, found in errors.items():
                lines.append(
                    f"| {name} | {head} | {test_set} | {found['RMSE']:.4g} | {found['MAE']:.4g} | "
                    f"{UNITS[name]} |"
                )
            (args.work / "heads.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    return 0


# --- QM9 ----------------------------------------------------------------------------------------


def prepare_qm9(source: Path, target: str, folder: Path) -> None:
    """Write the subsets of a BOOM split of one target."""
    if (folder / "ready").is_file():
        return
    sys.path.insert(0, str(EXAMPLE))
    import make_data  # noqa: PLC0415
    import pandas as pd  # noqa: PLC0415

    table = make_data.read_qm9(source)
    columns = [
        pd.read_csv(source / name, usecols=["Index", COLUMNS[target]])
        for name in make_data.QM9_FILES
    ]
    values = pd.concat(columns).set_index("Index")[COLUMNS[target]]
    values = values.loc[table["Index"]].to_numpy(dtype=np.float64)
    split = make_data.boom_split(values)
    rng = np.random.default_rng(0)
    pool = rng.permutation(split["train"])
    rows = {
        "train": pool[: SIZES["train"]],
        "valid": pool[SIZES["train"] : SIZES["train"] + SIZES["valid"]],
        "id_test": rng.choice(split["id"], SIZES["id_test"], replace=False),
        "ood_test": rng.choice(split["ood"], SIZES["ood_test"], replace=False),
    }
    for name, chosen in rows.items():
        frames = make_data.molecules(table, chosen)
        make_data.write_mixed(
            folder / "data" / name, frames, make_data.PAD_PROPERTY, {target: values[chosen]}
        )
    (folder / "ready").write_text("")


def qm9_input(target: str, net: dict[str, Any]) -> dict[str, Any]:
    """Return the FT input of a head: the small template, another head."""
    path = ROOT / "input_templates" / "small" / "input_ft.json"
    config = json.loads(path.read_text())
    template = config["model"]["fitting_net"]
    shared = ("neuron", "resnet_dt", "activation_function", "precision", "seed")
    kept = {key: template[key] for key in shared}
    config["model"]["fitting_net"] = {**net, "property_name": target, **kept}
    config["loss"]["property_name"] = target
    config["training"] |= {"numb_steps": STEPS, "disp_freq": 100, "save_freq": STEPS}
    return config


# --- MatBench dielectric ------------------------------------------------------------------------


def prepare_dielectric(source: Path, folder: Path) -> None:
    """Convert the task; hold out every row with one of UNSEEN, and a tenth of the others."""
    if (folder / "ready").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    convert = ["convert", str(source / "matbench_dielectric.json.gz"), str(folder / "all")]
    split = ["split", "element-out", str(folder / "all"), str(folder / "data")]
    split += ["--elements", ",".join(UNSEEN), "--id-test", "0.1", "--val", "0.05"]
    for command in (convert, split):
        subprocess.run(
            [sys.executable, "-c", "from deepmd_mft.cli import main; main()", *command, "--quiet"],
            check=True,
        )
    (folder / "ready").write_text("")


def crystal_input(folder: Path, net: dict[str, Any]) -> dict[str, Any]:
    """Return the input of a small network from scratch on the dielectric rows."""
    systems = sorted((folder / "data" / "train").rglob("type_map.raw"))
    type_map = systems[0].read_text().split()
    template = json.loads((ROOT / "input_templates" / "small" / "pretrain.json").read_text())
    descriptor = template["model"]["shared_dict"]["dpa3_descriptor"]
    repflow = {**descriptor["repflow"], "nlayers": 3, "e_sel": 200, "a_sel": 40}
    descriptor = {
        **descriptor,
        "repflow": {**repflow, "a_rcut": 3.2, "a_rcut_smth": 2.4, "sel_reduce_factor": 10.0},
    }
    native = net["type"] == "property"
    loss = {"loss_func": "smooth_mae", "metric": ["mae", "rmse"]}
    named = {"property_name": "n", "reduction": "sum"}
    return {
        "model": {
            "type": "standard" if native else "mft",
            "type_map": type_map,
            "data_stat_nbatch": 100000,
            "descriptor": descriptor,
            "fitting_net": {
                **net,
                "property_name": "n",
                "intensive": True,
                "neuron": [120, 120, 120],
                "precision": "float32",
                "seed": 1,
            },
        },
        "loss": {"type": "property", **loss}
        if native
        else {"type": "mft_property", **named, **loss},
        "learning_rate": {"type": "cosine", "start_lr": 1e-3, "stop_lr": 1e-5, "warmup_steps": 50},
        "training": {
            "training_data": {"systems": "data/train", "batch_size": "auto:64"},
            "validation_data": {"systems": "data/val", "batch_size": "auto:64"},
            "numb_steps": CRYSTAL_STEPS,
            "gradient_max_norm": 5.0,
            "seed": 1,
            "disp_freq": 100,
            "save_freq": CRYSTAL_STEPS,
        },
    }


# --- training and testing -----------------------------------------------------------------------


def train_and_test(
    folder: Path, head: str, config: dict[str, Any], sets: list[str]
) -> dict[str, dict[str, float]]:
    """Train, freeze and test one head; a finished one is read back."""
    run = folder / re.sub(r"\W+", "_", head)
    result = run / "errors.json"
    if result.is_file():
        return json.loads(result.read_text())
    run.mkdir(exist_ok=True)
    for name, target in (("data", folder / "data"), ("pretrained", EXAMPLE / "pretrained")):
        if not (run / name).exists():
            (run / name).symlink_to(target.resolve())
    (run / "input.json").write_text(json.dumps(config, indent=1))
    start = ["--finetune", "pretrained/model.pt"] if "finetune_head" in config["model"] else []
    dp(run, "train", "input.json", "--skip-neighbor-stat", *start)
    dp(run, "freeze", "-o", "model")
    errors = {}
    for name in sets:
        log = dp(run, "test", "-m", "model.pth", "-s", f"data/{name}", "-n", "0")
        errors[name] = {
            metric: float(re.findall(rf"PROPERTY {metric}\s*: (\S+)", log)[-1])
            for metric in ("MAE", "RMSE")
        }
    result.write_text(json.dumps(errors))
    return errors


def dp(folder: Path, *arguments: str) -> str:
    """Run `dp --pt`; return what it printed, which is kept in a log."""
    done = subprocess.run(
        [sys.executable, "-m", "deepmd", "--pt", *arguments],
        cwd=folder,
        env={**os.environ, **ONE_THREAD},
        capture_output=True,
        text=True,
        check=False,
    )
    output = done.stdout + done.stderr
    (folder / f"{arguments[0]}.log").write_text(output)
    if done.returncode:
        sys.exit(f"{output}\n{folder}: dp {' '.join(arguments)} failed")
    return output


if __name__ == "__main__":
    sys.exit(main())
