"""Steps, shares and batches of an input, as deepmd-kit works them out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deepmd_mft.bridge.inputs import Batches, TrainingData, build_learning_rate, plan_steps
from deepmd_mft.errors import UserError
from deepmd_mft.inputs.data import SECTIONS
from deepmd_mft.inputs.systems import list_systems

if TYPE_CHECKING:
    from deepmd_mft.inputs.branches import Branch
    from deepmd_mft.inputs.findings import Findings


@dataclass(frozen=True)
class Schedule:
    """What a training will do.

    Attributes
    ----------
    steps : int
        Of all branches together.
    shares : dict of float
        Of the steps, by branch.
    batches : dict of Batches
        Of the training data, by branch.
    """

    steps: int
    shares: dict[str, float]
    batches: dict[str, Batches]


def check_schedule(
    config: dict[str, Any], branches: list[Branch], findings: Findings
) -> Schedule | None:
    """Work out batches, steps, shares and learning rate; None if deepmd-kit cannot.

    Parameters
    ----------
    config : dict
        The normalised input.
    branches : list of Branch
    findings : Findings
        Filled.
    """
    data: dict[str, TrainingData] = {}
    try:
        for branch in branches:
            for section in SECTIONS:
                opened = findings.attempt(_open, branch, section)
                if opened is not None and section == "training_data":
                    data[branch.name] = opened
                elif opened is not None:
                    opened.close()
        if len(data) < len(branches):
            return None
        return findings.attempt(_plan, config, branches, data, findings)
    finally:
        for one in data.values():
            one.close()


def _open(branch: Branch, section: str) -> TrainingData | None:
    part = branch.data.get(section)
    if not part or not part.get("systems"):
        return None
    systems = list_systems(part, branch, section)
    sizes = part.get("batch_size")
    if isinstance(sizes, list) and len(sizes) != len(systems):
        raise UserError(
            f"{branch.where}, {section}: batch_size has {len(sizes)} entries for {len(systems)} "
            "systems; give one for each, or a single value for all"
        )
    try:
        return TrainingData(part, systems, branch.model.get("type_map") or [])
    except Exception as error:  # noqa: BLE001  (whatever ends the training would end here)
        raise UserError(
            f"{branch.where}, {section}: deepmd-kit cannot batch it with batch_size {sizes!r} "
            f"({error or type(error).__name__})"
        ) from None


def _plan(
    config: dict[str, Any],
    branches: list[Branch],
    data: dict[str, TrainingData],
    findings: Findings,
) -> Schedule:
    training = config["training"]
    several = "model_dict" in config["model"]
    _check_share_names(training, branches, findings)
    try:
        steps, shares = plan_steps(training, data, multi_task=several)
        build_learning_rate(config["learning_rate"], steps)
    except (ValueError, TypeError) as error:
        raise UserError(
            f"deepmd-kit refuses training or learning_rate: {error} (numb_steps "
            f"{training.get('numb_steps')}, learning_rate {_brief(config['learning_rate'])})"
        ) from None
    if several and not training.get("model_prob") and not training.get("num_epoch_dict"):
        told = ", ".join(
            f"{name} {share:.3g} ({len(data[name].data)})" for name, share in shares.items()
        )
        findings.warn(
            "training/model_prob is left out: deepmd-kit then draws the branches by their numbers "
            f"of systems (of frames for an LMDB), not by equal shares: {told}. Set model_prob"
        )
    return Schedule(steps, shares, {name: one.batches() for name, one in data.items()})


def _check_share_names(
    training: dict[str, Any], branches: list[Branch], findings: Findings
) -> None:
    """Tell of shares for branches that are not there; deepmd-kit ignores them."""
    for key in ("model_prob", "num_epoch_dict", "data_dict"):
        names = {branch.name for branch in branches}
        unknown = [name for name in training.get(key) or {} if name not in names]
        if unknown and names != {""}:
            findings.warn(
                f"training/{key} names {', '.join(unknown)}, which is no branch of model_dict "
                f"(there: {', '.join(names)}); it is ignored"
            )


def _brief(learning_rate: dict[str, Any]) -> str:
    keys = ("type", "start_lr", "stop_lr", "stop_lr_ratio", "warmup_steps", "warmup_ratio")
    return ", ".join(f"{key} {learning_rate[key]}" for key in keys if learning_rate.get(key))
