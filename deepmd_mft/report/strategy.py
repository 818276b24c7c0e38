"""By which strategy a run was trained: recorded or said, not guessed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepmd_mft.checkpoints.branch import mft_strategy
from deepmd_mft.checkpoints.start import first_weights
from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    from deepmd_mft.checkpoints.run import TrainingRun
    from deepmd_mft.inputs.branches import Branch

#: MFT, Table 1, in the order of the figures; several branches without a pretrained network; and
#: MFT with auxiliary branches of other kinds than the papers'.
STRATEGIES = {
    "scratch": "from scratch",
    "multitask": "multi-task from scratch",
    "ft": "fine-tuning (FT)",
    "lp": "linear probing (LP)",
    "mft": "multi-task fine-tuning (MFT)",
    "mft-property": "MFT with other properties",
    "mft-both": "MFT with force field and other properties",
}


def parse_run(text: str) -> tuple[Path, str | None]:
    """Split ``RUN`` or ``RUN:STRATEGY``.

    Raises
    ------
    UserError
        If there is no such strategy.
    """
    folder, colon, strategy = text.rpartition(":")
    if not colon or Path(text).exists():
        return Path(text), None
    if strategy not in STRATEGIES:
        raise UserError(
            f"'{text}': there is no strategy '{strategy}'; write RUN or RUN:STRATEGY with one of "
            f"{', '.join(STRATEGIES)}"
        )
    return Path(folder), strategy


def strategy_of(run: TrainingRun, branch: Branch) -> tuple[str, str]:
    """Return the strategy of a run, and the file that says so.

    What was trained is in deepmd-kit's ``out.json``; from which weights it started is in the
    record of the start, in ``_dp_mft_input`` of the input, or in the training log.

    Raises
    ------
    UserError
        If nothing says it.
    """
    found = first_weights(run.folder, run.config["training"].get("save_ckpt", "model.ckpt"))
    if found is None:
        said = _of_input(run)
        if said in STRATEGIES:
            return str(said), "_dp_mft_input"
        raise UserError(
            f"how {run.folder} started (from scratch, or from which checkpoint) is not recorded: "
            "there is no dp_mft_start.json and no training log in it. Say it: write "
            f"{run.folder}:STRATEGY with one of {', '.join(STRATEGIES)}"
        )
    weights, source = found
    several = len(run.branches) > 1
    frozen = branch.model.get("descriptor", {}).get("trainable", True) is False
    if weights is None and frozen:
        raise UserError(
            f"{run.folder} trained a frozen descriptor of random weights ({source}), which is none "
            f"of the strategies; say what it is to stand for: {run.folder}:STRATEGY with one of "
            f"{', '.join(STRATEGIES)}"
        )
    if weights is None:
        return ("multitask" if several else "scratch"), source
    if frozen:
        return "lp", source  # heads beside each other do not know of each other
    others = [one.model for one in run.branches if one.name != branch.name]
    return (mft_strategy(others) if several else "ft"), source


def _of_input(run: TrainingRun) -> Any:
    """Return the strategy that ``dp-mft input`` wrote; deepmd-kit's out.json leaves it out."""
    try:
        config = json.loads((run.folder / "input.json").read_text())
        return config["_dp_mft_input"]["strategy"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
