"""Branches that would train for nothing: without weight, with stale heads or equal labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from deepmd.utils.model_branch_dict import get_model_dict

from deepmd_mft.checkpoints.branch import as_list
from deepmd_mft.checkpoints.file import branch_weights, read_state
from deepmd_mft.errors import UserError
from deepmd_mft.inputs.branches import normalised, read_branches, read_input

if TYPE_CHECKING:
    from deepmd_mft.inputs.branches import Branch
    from deepmd_mft.inputs.findings import Findings
    from deepmd_mft.inputs.schedule import Schedule

#: Folders above a system in which the record of its set may lie.
ABOVE = 2


def check_weights(branch: Branch, schedule: Schedule | None, findings: Findings) -> None:
    """Warn of a branch whose data cannot have an effect: no weight in the loss, no share."""
    why = no_weight(branch.loss)
    if not why and schedule is not None and schedule.shares.get(branch.name) == 0:
        why = "its share (training/model_prob) is 0"
    if not why:
        return
    teacher = _teacher(branch)
    labels = f" Its labels are those of a teacher ({teacher}): made for nothing." if teacher else ""
    findings.warn(f"{branch.where} has no effect on the training: {why}.{labels} Give it weight")


def no_weight(loss: dict[str, Any]) -> str:
    """Say why a loss, normalised, is always 0; an empty string if it is not.

    Regularisers of the loss count: a branch may be there for them.
    """
    if any(one.get("weight") for one in loss.get("regularizers") or []):
        return ""
    if loss.get("lambda_reg") == 0:
        return "lambda_reg of its loss is 0"
    weights = as_list(loss.get("weight"))
    if weights and not any(weights):
        return "weight of its loss is 0"
    prefactors = {k: v for k, v in loss.items() if k.startswith(("start_pref", "limit_pref"))}
    if prefactors and not any(prefactors.values()):
        return f"the prefactors of its loss are 0 ({', '.join(prefactors)})"
    return ""


def _teacher(branch: Branch) -> str:
    """Return the record of the set whose labels a teacher made; empty if none is."""
    for system in as_list((branch.data.get("training_data") or {}).get("systems")):
        path = Path(str(system))
        for folder in [path, *list(path.absolute().parents)[:ABOVE]]:
            try:
                record = json.loads((folder / "dataset.json").read_text())
            except (OSError, ValueError):
                continue
            if isinstance(record, dict) and record.get("teacher"):
                return str(folder / "dataset.json")
    return ""


def check_constant(branch: Branch, labels: dict[str, np.ndarray], findings: Findings) -> None:
    """Warn of training labels that are all the same, at the places that hold them.

    Parameters
    ----------
    branch : Branch
    labels : dict of np.ndarray
        By property, nframes x columns; NaN where missing.
    findings : Findings
        Filled.
    """
    systems = as_list((branch.data.get("training_data") or {}).get("systems"))
    places = ", ".join(map(str, systems[:3])) + (", ..." if len(systems) > 3 else "")
    for name, values in labels.items():
        for number, column in enumerate(values.T):
            known = column[np.isfinite(column)]
            if len(known) > 1 and not np.ptp(known):
                shown = name if values.shape[1] == 1 else f"{name}[{number}]"
                findings.warn(
                    f"{branch.where}: {shown} is {known[0]:g} in all {len(known)} training "
                    f"structures ({name} in {places}); there is nothing to learn"
                )


def check_heads(branches: list[Branch], checkpoint: Path, findings: Findings) -> None:
    """Warn of inherited heads that were not trained with the backbone that is loaded.

    Found are branches that got no step or no weight in the training that wrote the checkpoint (by
    the ``out.json`` beside it), and checkpoints whose branches have descriptors of their own.

    Parameters
    ----------
    branches : list of Branch
        Of the input.
    checkpoint : Path
        Of ``--finetune``.
    findings : Findings
        Filled.
    """
    try:
        state = read_state(checkpoint)
    except UserError:
        return  # reported by the checks before
    params = state["_extra_state"]["model_params"]
    if "model_dict" not in params:
        return
    aliases = get_model_dict(params["model_dict"])[0]
    inherited = {}
    for branch in branches:
        head = branch.model.get("finetune_head", branch.name)
        if head in aliases:
            inherited[branch.name] = aliases[head]
    idle = _untrained(checkpoint)
    for name, head in inherited.items():
        if head in idle:
            findings.warn(
                f"branch '{name}': the head '{head}' of {checkpoint} is stale: in the training "
                f"that wrote it {idle[head]}, while its backbone moved on. Expect a large error at "
                "the first steps; take the checkpoint before that training, or finetune_head RANDOM"
            )
    backbone = next(iter(params["model_dict"]))  # of heads that are new
    first = next(iter(branches)).name
    backbone = inherited.get(first, backbone)  # the first branch's is shared
    for name, head in inherited.items():
        if len(branches) > 1 and not _same_backbone(state, head, backbone, checkpoint):
            findings.warn(
                f"branch '{name}': the head '{head}' of {checkpoint} was trained with a backbone "
                f"of its own, not with that of '{backbone}', which the branches share here; take "
                "finetune_head RANDOM, or a checkpoint whose branches share one"
            )


def _untrained(checkpoint: Path) -> dict[str, str]:
    """Return the branches that the run of a checkpoint did not train, and why."""
    path = checkpoint.resolve().parent / "out.json"
    if not path.is_file():
        return {}
    try:
        config = normalised(read_input(path))
        branches = read_branches(config)
    except UserError:
        return {}
    shares = config["training"].get("model_prob") or {}
    found = {one.name: no_weight(one.loss) for one in branches}
    found |= {name: "its share was 0" for name, share in shares.items() if share == 0}
    return {name: why for name, why in found.items() if why}


def _same_backbone(state: dict[str, Any], head: str, other: str, path: Path) -> bool:
    """Whether two branches of a checkpoint have one descriptor, statistics apart."""
    prefix = "atomic_model.descriptor."
    mine, theirs = (
        {
            key: value
            for key, value in branch_weights(state, one, path).items()
            if key.startswith(prefix) and key.split(".")[-1] not in ("mean", "stddev")
        }
        for one in (head, other)
    )
    return mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine)
