"""How a training was started: recorded beside its checkpoints, else read from its log.

deepmd-kit's ``out.json`` says what was trained, but not from which weights: ``finetune_head`` is
optional, and without ``--finetune`` it is ignored.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from deepmd_mft.files.staging import atomic_file

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

RECORD = "dp_mft_start.json"
#: Options of ``dp --pt train`` that name the weights it starts from.
OPTIONS = ("finetune", "init_model", "init_frz_model", "restart")
LARGEST_LOG = 2**28


def record_start(
    folder: Path,
    args: argparse.Namespace,
    labels: dict[str, dict[str, np.ndarray]],
    filled: dict[str, Any] | None = None,
) -> None:
    """Append a start to the record in the folder of a run.

    Parameters
    ----------
    folder : Path
        Where ``dp --pt train`` runs.
    args : argparse.Namespace
        Its command line.
    labels : dict of dict of np.ndarray
        Training labels by branch and property, nframes x columns; NaN where missing.
    filled : dict, optional
        What ``dp-mft input`` wrote of itself: the checkpoint, and which one it was a copy of.
    """
    start: dict[str, Any] = {
        "date": dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        "input": str(args.INPUT),
        **{option: getattr(args, option, None) for option in OPTIONS},
        "training_labels": {
            branch: {
                name: summary_of_labels(one[np.isfinite(one).all(axis=1), 0])
                for name, one in own.items()
                if np.isfinite(one).all(axis=1).any()
            }
            for branch, own in labels.items()
        },
        **({"filled": filled} if filled else {}),
    }
    with atomic_file(folder / RECORD) as partial:
        partial.write_text(json.dumps([*read_starts(folder), start], indent=1) + "\n")


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
