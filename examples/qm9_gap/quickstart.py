"""Fine-tune a pretrained DPA-3 on the QM9 gap: plainly, and with one of two branches beside it.

The branch holds the force field that was pretrained, or learns cheap (GFN2-xTB) gaps of the same
molecules. The three trainings run with `dp`, two at a time and one thread each; then the models are
frozen and tested in and out of distribution. Every command is printed before it runs, so that it
can be run by hand. A run that was interrupted goes on at its last checkpoint; a finished one is not
repeated.

    python examples/qm9_gap/quickstart.py        # from the repository's root: `make quickstart`

Writes runs/<strategy>/ (input, log, lcurve.out, checkpoints, frozen model), runs/table.md,
runs/table.json and runs/learning_curves.png.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import ScalarFormatter

from deepmd_mft.plots.style import STRATEGY_COLOURS

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
#: By template; the longest first, so that the two others share the second core.
STRATEGIES = {
    "mft_cheap": "multi-task fine-tuning with cheap gaps (MFT, cheap)",
    "ft": "plain fine-tuning (FT)",
    "mft": "multi-task fine-tuning with the force field (MFT)",
}
SHOWN = {"ft": "FT", "mft": "MFT", "mft_cheap": "MFT, cheap"}
KINDS = {"ft": "ft", "mft": "mft", "mft_cheap": "mft-property"}
AT_A_TIME = 2
SETS = {"id_test": "ID", "ood_test": "OOD"}
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "DP_INTRA_OP_PARALLELISM_THREADS": "1",
    "DP_INTER_OP_PARALLELISM_THREADS": "1",
    "NUM_WORKERS": "0",  # loader processes would compete with the trainings for the cores
}


def main() -> int:
    """Train, freeze, test, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=HERE / "runs", help="where to write")
    parser.add_argument("--steps", type=int, help="property steps; the templates' if left out")
    args = parser.parse_args()
    start = time.monotonic()
    folders = {name: prepare(args.runs / name, name, args.steps) for name in STRATEGIES}
    print(f"Training {AT_A_TIME} at a time in {args.runs} (a few minutes) ...", flush=True)
    train_all(folders)
    errors = {"composition least squares": composition_baseline()}
    for name in SHOWN:
        head = ["--head", "property"] if is_multi_task(folders[name]) else []
        dp(folders[name], "freeze", "-o", "model", *head)
        errors[STRATEGIES[name]] = {key: test(folders[name], key) for key in SETS}
    minutes = (time.monotonic() - start) / 60
    write_report(args.runs, errors, minutes)
    plot_learning_curves(args.runs / "learning_curves.png", folders)
    print((args.runs / "table.md").read_text())
    print(f"{minutes:.1f} minutes. Table and learning curves are in {args.runs}")
    return 0


# --- training -----------------------------------------------------------------------------------


def prepare(folder: Path, name: str, steps: int | None) -> Path:
    """Make the folder of a run: the template as input.json, and links to data and checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads((ROOT / "input_templates" / "small" / f"input_{name}.json").read_text())
    if steps:
        training = config["training"]
        share = training.get("model_prob", {}).get("property", 1.0)
        training["numb_steps"] = round(steps / share)
        rate = config["learning_rate"]
        rate["warmup_steps"] = min(rate["warmup_steps"], training["numb_steps"] // 2)
    text = json.dumps(config, indent=2)
    path = folder / "input.json"
    if path.is_file() and path.read_text() != text:
        kept = folder.with_name(f"{name}.until-{time.strftime('%Y%m%d-%H%M%S')}")
        folder.rename(kept)
        print(f"The input of {name} has changed; the run so far is kept in {kept}", flush=True)
        folder.mkdir()
    path.write_text(text)
    for link in ("data", "pretrained"):
        if not (folder / link).exists():
            (folder / link).symlink_to(os.path.relpath(HERE / link, folder))
    return folder


def train(folder: Path) -> subprocess.Popen[bytes] | None:
    """Start `dp --pt train`, from the last checkpoint if there is one; None if it is finished."""
    numb_steps = json.loads((folder / "input.json").read_text())["training"]["numb_steps"]
    if (folder / f"model.ckpt-{numb_steps}.pt").is_file():
        print(f"  {folder.name}: finished before", flush=True)
        return None
    start = ["--finetune", "pretrained/model.pt"]
    if (folder / "checkpoint").is_file():
        start = ["--restart", (folder / "checkpoint").read_text().strip()]
    command = ["dp", "--pt", "train", "input.json", *start]
    print(f"  (cd {folder}; {' '.join(command)})", flush=True)
    with (folder / "train.log").open("ab") as log:
        return subprocess.Popen(
            command, cwd=folder, env=environment(), stdout=log, stderr=subprocess.STDOUT
        )


def train_all(folders: dict[str, Path]) -> None:
    """Run the trainings, so many at a time, and show their progress until they end."""
    waiting = list(folders)
    running: dict[str, subprocess.Popen[bytes]] = {}
    shown = time.monotonic()
    while waiting or running:
        if waiting and len(running) < AT_A_TIME:
            name = waiting.pop(0)
            started = train(folders[name])
            if started is not None:
                running[name] = started
            continue
        time.sleep(1)
        for name, run in list(running.items()):
            if run.poll() is None:
                continue
            if run.returncode:
                log = (folders[name] / "train.log").read_text().splitlines()
                stop(running)
                sys.exit("\n".join([*log[-15:], f"quickstart: {name} failed, see above"]))
            del running[name]
        if running and time.monotonic() - shown > 20:
            shown = time.monotonic()
            steps = [f"{SHOWN[name]} at step {last_step(folders[name])}" for name in running]
            print("  " + "; ".join(steps), flush=True)


def stop(running: dict[str, subprocess.Popen[bytes]]) -> None:
    """End what still trains; it goes on from its last checkpoint another time."""
    for run in running.values():
        run.terminate()


def is_multi_task(folder: Path) -> bool:
    """Whether the run has several branches."""
    return "loss_dict" in json.loads((folder / "input.json").read_text())


def last_step(folder: Path) -> int:
    """Return the last step in lcurve.out."""
    path = folder / "lcurve.out"
    lines = path.read_text().splitlines() if path.is_file() else []
    rows = [line for line in lines if line.strip() and not line.startswith("#")]
    return int(rows[-1].split()[0]) if rows else 0


def environment() -> dict[str, str]:
    """Return the environment of one training: one thread, and this Python's `dp` first."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, **ONE_THREAD, "PATH": path}


def dp(folder: Path, *arguments: str) -> str:
    """Run `dp --pt`; return what it printed."""
    command = ["dp", "--pt", *arguments]
    print(f"  (cd {folder}; {' '.join(command)})", flush=True)
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stdout + done.stderr + f"quickstart: `{' '.join(command)}` failed")
    return done.stdout + done.stderr


# --- testing ------------------------------------------------------------------------------------


def test(folder: Path, name: str) -> dict[str, float]:
    """Return MAE and RMSE as `dp --pt test` prints them, in Hartree."""
    log = dp(folder, "test", "-m", "model.pth", "-s", f"data/{name}", "-n", "0")
    return {
        metric: float(re.findall(rf"PROPERTY {metric}\s*: (\S+)", log)[-1])
        for metric in ("MAE", "RMSE")
    }


def composition_baseline() -> dict[str, dict[str, float]]:
    """Return the errors of least squares on the atomic fractions of the training molecules."""
    fractions, gap = load("train")
    coefficients = np.linalg.lstsq(fractions, gap, rcond=None)[0]
    errors = {}
    for name in SETS:
        fractions, gap = load(name)
        difference = fractions @ coefficients - gap
        errors[name] = {
            "MAE": float(np.abs(difference).mean()),
            "RMSE": float(np.sqrt(np.mean(difference**2))),
        }
    return errors


def load(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return atomic fractions (nframes x ntypes) and gaps (nframes) of a set."""
    folder = HERE / "data" / name
    ntypes = len((folder / "type_map.raw").read_text().split())
    types = np.concatenate([np.load(p) for p in sorted(folder.rglob("real_atom_types.npy"))])
    gap = np.concatenate([np.load(p) for p in sorted(folder.rglob("gap.npy"))])
    counts = np.stack([(types == i).sum(axis=1) for i in range(ntypes)], axis=1)
    return counts / counts.sum(axis=1, keepdims=True), gap.ravel()


# --- reporting ----------------------------------------------------------------------------------


def write_report(runs: Path, errors: dict[str, Any], minutes: float) -> None:
    """Write the table as Markdown and JSON."""
    labels = len(load("train")[1])
    lines = [
        f"QM9 HOMO-LUMO gap, {labels} labelled molecules, errors in milli-Hartree on "
        + " and ".join(f"{len(load(name)[1])} {kind}" for name, kind in SETS.items())
        + " test molecules:",
        "",
        "| model | ID RMSE | ID MAE | OOD RMSE | OOD MAE |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for model, sets in errors.items():
        cells = [f"{1000 * sets[s][metric]:.1f}" for s in SETS for metric in ("RMSE", "MAE")]
        lines.append(f"| {model} | " + " | ".join(cells) + " |")
    (runs / "table.md").write_text("\n".join(lines) + "\n")
    record = {"unit": "Hartree", "labels": labels, "minutes": minutes, "errors": errors}
    (runs / "table.json").write_text(json.dumps(record, indent=2) + "\n")


def read_lcurve(folder: Path) -> dict[str, np.ndarray]:
    """Read lcurve.out; columns by their names in its header."""
    path = folder / "lcurve.out"
    names = path.read_text().splitlines()[0].lstrip("# ").split()
    return dict(zip(names, np.loadtxt(path, ndmin=2).T, strict=True))


def smooth(values: np.ndarray, width: int = 5) -> np.ndarray:
    """Return the mean of each value and those before it, `width` at most."""
    return np.array([values[max(0, i + 1 - width) : i + 1].mean() for i in range(len(values))])


def plot_learning_curves(path: Path, folders: dict[str, Path]) -> None:
    """Draw the property errors of the runs, and the force error that MFT holds down."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for name, shown in SHOWN.items():
        folder = folders[name]
        colour = STRATEGY_COLOURS["light"][KINDS[name]]
        curve = read_lcurve(folder)
        training = json.loads((folder / "input.json").read_text())["training"]
        share = training.get("model_prob", {}).get("property", 1.0)
        head = "_property" if is_multi_task(folder) else ""
        steps = curve["step"] * share
        for part, style, label in (("trn", ":", "training"), ("val", "-", "validation")):
            error = 1000 * smooth(curve[f"rmse_{part}{head}"])
            left.plot(steps, error, style, color=colour, label=f"{shown}, {label}")
        if name == "mft":
            force = smooth(curve["rmse_f_val_GFN2"])
            right.plot(steps, force, "-", color=colour, label="MFT, validation")
    left.set(xlabel="property steps", ylabel="gap RMSE (milli-Hartree)", yscale="log")
    right.set(xlabel="property steps", ylabel="force RMSE (eV/Å)", title="Force-field branch")
    for axis in (left.yaxis.set_major_formatter, left.yaxis.set_minor_formatter):
        axis(ScalarFormatter())
    left.set_title("Property branch (batches shown, mean of 5)")
    left.legend(loc="upper right", fontsize="small", ncols=2)
    right.legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
