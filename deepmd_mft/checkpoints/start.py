"""How a training was started: recorded beside its checkpoints, else read from its log.

deepmd-kit's ``out.json`` says what was trained, but not from which weights: ``finetune_head`` is
optional, and without ``--finetune`` it is ignored.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deepmd_mft.files.staging import atomic_file
from deepmd_mft.inputs.systems import list_systems
from deepmd_mft.structures.structure_set import StructureSet

if TYPE_CHECKING:
    import argparse

    from deepmd_mft.inputs.branches import Branch

RECORD = "dp_mft_start.json"
#: Options of ``dp --pt train`` that name the weights it starts from.
OPTIONS = ("finetune", "init_model", "init_frz_model", "restart")
LARGEST_LOG = 2**28


def record_start(folder: Path, args: argparse.Namespace, branches: list[Branch]) -> None:
    """Append a start to the record in the folder of a run.

    Parameters
    ----------
    folder : Path
        Where ``dp --pt train`` runs.
    args : argparse.Namespace
        Its command line.
    branches : list of Branch
        Of its input.
    """
    start: dict[str, Any] = {
        "date": dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        "input": str(args.INPUT),
        **{option: getattr(args, option, None) for option in OPTIONS},
        "training_labels": {b.name: _training_labels(b) for b in branches if b.is_property},
    }
    with atomic_file(folder / RECORD) as partial:
        partial.write_text(json.dumps([*read_starts(folder), start], indent=1) + "\n")


def _training_labels(branch: Branch) -> dict[str, dict[str, float]]:
    """Return number, mean and standard deviation of the first column of each training label."""
    section = branch.data.get("training_data") or {}
    if "systems" not in section:
        return {}
    systems = list_systems(section, branch, "training_data")
    structures = StructureSet("training", [Path(one) for one in systems])
    found = {}
    for name in branch.labels:
        labels = structures.labels(name)
        known = np.empty(0) if labels is None else labels[np.isfinite(labels).all(axis=1), 0]
        if len(known):
            found[name] = summary_of_labels(known)
    return found


def summary_of_labels(labels: np.ndarray) -> dict[str, float]:
    """Return number, mean and standard deviation of labels, shape ``nlabels``."""
    return {
        "labels": len(labels),
        "mean": float(labels.mean()),
        "std": float(labels.std()),
    }


def read_starts(folder: Path) -> list[dict[str, Any]]:
    """Return the recorded starts of a run, first to last; empty if there is no record."""
    try:
        found = json.loads((folder / RECORD).read_text())
    except (OSError, ValueError):
        return []
    return found if isinstance(found, list) else []


def first_weights(folder: Path, save_ckpt: str) -> tuple[str | None, str] | None:
    """Return from which weights a run started, and what says so; None if nothing does.

    Parameters
    ----------
    folder : Path
        Of the run.
    save_ckpt : str
        Prefix of its checkpoints: a run that resumes from one of these goes on, it does not start.

    Returns
    -------
    weights : str or None
        A checkpoint; None for random weights.
    source : str
        Name of the file that says so.
    """
    fresh = [start for start in read_starts(folder) if not start.get("restart")]
    if fresh:
        weights = [fresh[-1].get(option) for option in OPTIONS[:-1]]
        return next((str(one) for one in weights if one), None), RECORD
    for path in sorted(folder.iterdir()):
        if path.suffix in (".log", ".out", ".err", ".txt", "") and path.is_file():
            found = _from_log(path, save_ckpt)
            if found is not None:
                return found[0], path.name
    return None


def _from_log(path: Path, save_ckpt: str) -> tuple[str | None] | None:
    """Return the weights of the last start in a log of ``dp --pt train``; None if it has none."""
    if path.stat().st_size > LARGEST_LOG:
        return None
    text = path.read_text(errors="replace")
    for part in reversed(text.split("Configuration path:")[1:]):
        resumed = re.search(r"Resuming from (.+)\.$", part, re.MULTILINE)
        if "Start to train" not in part:
            continue
        if resumed is None:
            return (None,)
        name = os.path.normpath(resumed[1])
        own = os.path.normpath(save_ckpt)
        if not name.startswith((own, str(path.parent / own))):
            return (resumed[1],)
    return None
