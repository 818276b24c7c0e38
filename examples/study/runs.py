"""Runs of a study: their inputs, written by `dp-mft input`, their training and their checkpoint."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Edit = Callable[[dict[str, Any]], None]

TEMPLATES = Path(__file__).resolve().parents[2] / "input_templates" / "small"
CHECKPOINTS = 10
PROPERTY_BATCH = 16  # the templates'
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "DP_INTRA_OP_PARALLELISM_THREADS": "1",
    "DP_INTER_OP_PARALLELISM_THREADS": "1",
    "NUM_WORKERS": "0",
}
#: What a target's head has instead of the template's: the mean over the atoms.
HEADS: dict[str, dict[str, Any]] = {
    "mu": {"type": "mft_dipole_norm"},
    "r2": {"type": "mft_spatial_extent"},
    "alpha": {"type": "mft_property", "intensive": False},
}
MEAN: dict[str, Any] = {"type": "mft_property", "intensive": True, "bias": "element"}
#: Branches that learn cheap labels of the auxiliary set, and their heads.
CHEAP: dict[str, dict[str, Any]] = {
    "orbitals": {**MEAN, "property_name": ["gap", "homo", "lumo"]},
    "dipole": {"type": "mft_dipole_norm", "property_name": "mu"},
    "polarizability": {"type": "mft_property", "intensive": False, "property_name": "alpha"},
    "extent": {"type": "mft_spatial_extent", "property_name": "r2"},
}
#: Of a target, the one that is about the same thing.
CHEAP_FOR = {
    "gap": "orbitals",
    "homo": "orbitals",
    "lumo": "orbitals",
    "mu": "dipole",
    "alpha": "polarizability",
    "r2": "extent",
}
OF_MFT_PROPERTY = ("type", "task_dim", "intensive", "bias")


def write_input(
    folder: Path,
    strategy: str,
    target: str,
    checkpoint: Path,
    sets: dict[str, Path],
    *,
    auxiliary: dict[str, dict[str, Path]] | None = None,
    share: float = 1.0,
    steps: int,
    seed: int,
    edit: Edit | None = None,
) -> None:
    """Write the input of a run, unless it is there.

    Parameters
    ----------
    folder : Path
        Of the run.
    strategy : str
        Template: scratch, ft, lp or mft.
    target : str
        Label of the property branch.
    checkpoint : Path
        Gives the descriptor, also to runs from scratch.
    sets : dict
        Folders of ``train`` and ``valid``.
    auxiliary : dict, optional
        Of the auxiliary branches, by name, the same two. Those that the checkpoint lacks are new,
        with the heads of :data:`CHEAP`.
    share : float
        Of the property branch.
    steps : int
        Of the property branch; those of the others come on top.
    seed : int
        Of everything.
    edit : callable, optional
        Changes the input that `dp-mft input` wrote.
    """
    if (folder / "input.json").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    template = json.loads((TEMPLATES / f"input_{strategy}.json").read_text())
    model = template["model"]
    if auxiliary:
        _keep_branches(template, auxiliary)
    net = (model["model_dict"]["property"] if "model_dict" in model else model)["fitting_net"]
    loss = template["loss_dict"]["property"] if "loss_dict" in template else template["loss"]
    if target in HEADS:
        _give_head(net, HEADS[target])
    net["property_name"] = loss["property_name"] = target
    (folder / "template.json").write_text(json.dumps(template, indent=1))
    total = round(steps / share)
    words: list[object] = [
        "input", folder / "template.json", "--checkpoint", checkpoint, "--property", target,
        "--train", sets["train"], "--valid", sets["valid"],
        "--steps", total, "--save-freq", total // CHECKPOINTS, "--no-tighten",
        "-o", folder / "filled.json", "--overwrite",
    ]  # fmt: skip
    if auxiliary:
        for part in ("train", "valid"):
            folders = (f"{_labelled(name)}={own[part]}" for name, own in auxiliary.items())
            words += [f"--aux-{part}", *folders]
        words += ["--aux-batch-size", *(f"{name}={_batch_size(name)}" for name in auxiliary)]
        words += ["--share", share]
    dp_mft(*words, quiet=True)
    config = json.loads((folder / "filled.json").read_text())
    _give_cheap_heads(config, set(auxiliary or ()) & set(CHEAP))
    set_seed(config, seed)
    if edit is not None:
        edit(config)
    config["training"]["max_ckpt_keep"] = CHECKPOINTS
    (folder / "input.json").write_text(json.dumps(config, indent=1))


def _keep_branches(template: dict[str, Any], names: Iterable[str]) -> None:
    model = template["model"]["model_dict"]
    for part in (model, template["loss_dict"], template["training"]["data_dict"]):
        for name in [name for name in part if name not in (*names, "property")]:
            del part[name]


def _give_cheap_heads(config: dict[str, Any], names: set[str]) -> None:
    """Give branches that the checkpoint lacks the heads of their labels."""
    for name in names:
        branch = config["model"]["model_dict"][name]
        if branch["finetune_head"] == "RANDOM":
            _give_head(branch["fitting_net"], CHEAP[name])
            config["loss_dict"][name]["property_name"] = CHEAP[name]["property_name"]


def _batch_size(name: str) -> str:
    """Return the molecules of a step: as many as of the property, or the paper's of forces."""
    return str(PROPERTY_BATCH) if name in CHEAP else "auto:128"


def _labelled(name: str) -> str:
    labels = CHEAP[name]["property_name"] if name in CHEAP else "energy"
    return f"{name}:{labels if isinstance(labels, str) else ','.join(labels)}"


def _give_head(net: dict[str, Any], head: dict[str, Any]) -> None:
    """Make a fitting net another one of the same layers."""
    for key in OF_MFT_PROPERTY:
        net.pop(key, None)
    net |= head


def set_seed(part: Any, seed: int) -> None:
    """Set every key `seed` below `part`."""
    if isinstance(part, dict):
        for key, value in part.items():
            if key == "seed":
                part[key] = seed
            else:
                set_seed(value, seed)


def train(folder: Path, checkpoint: Path | None) -> None:
    """Run `dp --pt train` from the last checkpoint of the run, or from the given one."""
    config = json.loads((folder / "input.json").read_text())
    if (folder / f"model.ckpt-{config['training']['numb_steps']}.pt").is_file():
        return
    start: list[str] = []
    if (folder / "checkpoint").is_file():
        start = ["--restart", (folder / "checkpoint").read_text().strip()]
    elif checkpoint is not None:
        start = ["--finetune", str(checkpoint)]
    command = [sys.executable, "-m", "deepmd", "--pt", "train", "input.json", *start]
    with (folder / "train.log").open("ab") as log:
        subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **ONE_THREAD},
            stdout=log,
            stderr=subprocess.STDOUT,
            check=True,
        )
    print(f"{folder.name} trained", flush=True)


def model_of(folder: Path) -> str:
    """Return the chosen model of a run, or of an interpolation, with its branch."""
    path = folder / "input.json"
    several = path.is_file() and "loss_dict" in path.read_text()
    return f"{folder / 'model.best.pt'}{':property' if several else ''}"


def dp_mft(*words: object, quiet: bool = False) -> None:
    """Run `dp-mft`."""
    subprocess.run(
        [sys.executable, "-m", "deepmd_mft", *map(str, words)],
        env={**os.environ, **ONE_THREAD},
        stdout=subprocess.DEVNULL if quiet else None,
        check=True,
    )
