"""Where models, test sets and splits of a report come from, as far as their files say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepmd_mft.evaluation.folds import without_fold
from deepmd_mft.report.strategy import STRATEGIES
from deepmd_mft.structures.npy import list_systems
from deepmd_mft.structures.places import folder_checksum

if TYPE_CHECKING:
    from deepmd_mft.report.runs import Run


def described(run: Run) -> dict[str, Any]:
    """Return what the page prints of a run: its model, strategy and settings."""
    own = run.training.counted or run.training.labels
    labels = "unknown" if own is None else own
    return {
        "name": run.folder.name,
        "strategy": STRATEGIES[run.strategy],
        "source": run.source,
        "model": Path(run.model["path"]).name,
        "sha256": run.model["sha256"],
        "labels": labels,
        "steps": run.config["training"].get("numb_steps"),
        "date": run.record["date"],
        "config": json.dumps(run.config, indent=1),
    }


def _selection(run: Run) -> dict[str, Any]:
    """Return the record of ``dp-mft select``; empty unless the model is its choice."""
    if Path(run.model["path"]).name not in _names_of_best(run):
        return {}
    try:
        found = json.loads((run.folder / "selection.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _names_of_best(run: Run) -> set[str]:
    best = run.folder / "model.best.pt"
    return {best.name, best.resolve().name} if best.is_symlink() else set()


def choices(runs: list[Run]) -> list[str]:
    """Say how the checkpoint of each run was chosen, as far as it is recorded."""
    chosen = [run.folder.name for run in runs if _selection(run)]
    others = [run.folder.name for run in runs if run.folder.name not in chosen]
    found = []
    if chosen:
        found.append(
            f"{_listed(chosen, len(runs))}: checkpoint chosen on validation data by dp-mft select"
        )
    if others:
        found.append(f"{_listed(others, len(runs))}: how the checkpoint was chosen is not recorded")
    return found


def _listed(names: list[str], total: int) -> str:
    return "all runs" if len(names) == total and total > 1 else ", ".join(names)


def leaks(runs: list[Run]) -> list[str]:
    """Say which runs were selected on data that are a test set here."""
    found = []
    for run in runs:
        used = {one["sha256"] for one in _selection(run).get("validation", [])}
        for name, one in run.record["sets"].items() if used else ():
            if any(used & _checksums(folder) for folder in one["folders"]):
                found.append(
                    f"the checkpoint of {run.folder.name} was chosen on {name} itself: its errors "
                    "there are no test"
                )
    return found


def _checksums(folder: dict[str, str]) -> set[str]:
    """Return the SHA-256 of the folder of a test set, and of each system in it.

    A training names systems, and a selection has the checksums of these.
    """
    path = Path(folder["path"])
    systems = list_systems(path) if path.is_dir() else []
    return {folder["sha256"], *(folder_checksum(path / name) for name in systems)}


def splits(runs: list[Run]) -> list[str]:
    """Say by which method and seed each test set was made, as ``split.json`` has it."""
    found: dict[str, str] = {}
    for run in runs:
        for name, one in run.record["sets"].items():
            words = f"split by {one['split']}" if one.get("split") else "no split.json says how"
            if one.get("split") and one.get("split_seed") is not None:
                words += f", seed {one['split_seed']}"
            found.setdefault(f"{without_fold(name)}: {words}", "")
    return list(found)
