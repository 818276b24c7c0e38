"""Checks that run before ``dp --pt train`` starts, on inputs that use this package.

deepmd-kit reads label files when a batch first needs them, so a broken file can stop a run after
hours, and a missing force label of the auxiliary branch is skipped without a word. Everything that
can be known from the files is looked at here, before the first step and before anything is
written. An input without a type of this package is left alone.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepmd.common import j_loader

from deepmd_mft.bridge.elements import sort_elements_by_table
from deepmd_mft.bridge.inputs import take_pretrained_model
from deepmd_mft.bridge.neighbours import remember_neighbour_statistics
from deepmd_mft.bridge.reading import read_frames_without_threads
from deepmd_mft.checkpoints.file import read_model_params
from deepmd_mft.checkpoints.start import record_start
from deepmd_mft.errors import UserError
from deepmd_mft.files.cache import content_key, remembered
from deepmd_mft.inputs.branches import Branch, normalised, read_branches
from deepmd_mft.inputs.checkpoint import check_checkpoint, checkpoint_path
from deepmd_mft.inputs.data import check_data
from deepmd_mft.inputs.findings import Findings
from deepmd_mft.inputs.idle import check_constant, check_heads, check_weights
from deepmd_mft.inputs.parts import (
    check_case_embeddings,
    check_edge_dropout,
    check_name,
    check_same_property,
    check_types,
)
from deepmd_mft.inputs.regularizers import check_references
from deepmd_mft.inputs.schedule import Schedule, check_schedule
from deepmd_mft.inputs.systems import list_systems
from deepmd_mft.inputs.validation import check_validation, watched

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    import numpy as np


def check_command(args: argparse.Namespace) -> None:
    """Check the input of ``dp --pt train``; other commands pass.

    Of the processes of a distributed training, the first checks.

    Parameters
    ----------
    args : argparse.Namespace
        The parsed command line of ``dp``.

    Raises
    ------
    UserError
        With the file, key, branch or element, and what to do.
    """
    if getattr(args, "command", None) != "train":
        return
    config = j_loader(args.INPUT)
    given = {option: Path(path) for option in CHECKPOINTS if (path := getattr(args, option, None))}
    if getattr(args, "use_pretrain_script", False):
        config = _with_pretrained_model(config, given, getattr(args, "model_branch", ""))
    if not uses_this_package(config):
        return
    if "finetune" in given:
        config = _with_model_branch(config, getattr(args, "model_branch", "") or "")
    read_frames_without_threads()
    sort_elements_by_table()
    _speed_up()
    if int(os.environ.get("RANK", "0")) != 0:
        _watch(read_branches(normalised(config)), given)
        return
    checked = check_all(config, given, Findings(stop=True))
    _watch(checked.branches, given)
    if "finetune" in given:
        _look_at_inherited_heads()
    record_start(Path.cwd(), args, checked.labels, config.get("_dp_mft_input"))


def _speed_up() -> None:
    from deepmd_mft.backbones.switch import speed_up_models  # noqa: PLC0415  (loads torch models)
    from deepmd_mft.bridge.training import change_models  # noqa: PLC0415

    change_models(speed_up_models)
    remember_neighbour_statistics(_remember)


def _watch(branches: list[Branch], given: dict[str, Path]) -> None:
    """Have the branch whose loss asks for it validated during the training."""
    branch = watched(branches)
    if branch is None:
        return
    from deepmd_mft.bridge.validation import watch_trainings  # noqa: PLC0415  (loads torch models)
    from deepmd_mft.checkpoints.watching import Watch  # noqa: PLC0415

    part = branch.data.get("validation_data") or {}
    systems = list_systems(part, branch, "validation_data") if part.get("systems") else []
    restart = checkpoint_path(given["restart"], finetune=False) if "restart" in given else None
    watch_trainings(
        lambda training: Watch(
            training,
            branch.name,
            [Path(one) for one in systems],
            branch.loss["validation"],
            branch.where,
            Path.cwd(),
            restart,
        )
    )


def _look_at_inherited_heads() -> None:
    """Have it said before the first step what inherited force fields are worth on the data."""
    from deepmd_mft.bridge.inherited import look_at_inherited_heads  # noqa: PLC0415  (see above)
    from deepmd_mft.training.inherited import report_inherited  # noqa: PLC0415

    look_at_inherited_heads(report_inherited)


def _remember(
    systems: list[str],
    options: tuple[Any, ...],
    compute: Callable[[], dict[str, Any]],
) -> dict[str, Any]:
    arrays = ("coord", "box", "real_atom_types")
    return remembered("neighbour_statistics", content_key(systems, arrays, *options), compute)


CHECKPOINTS = ("finetune", "init_model", "restart")


def uses_this_package(config: dict[str, Any]) -> bool:
    """Whether a model, fitting net or loss of an input is of a type of this package."""
    model = config.get("model")
    if not isinstance(model, dict):
        return False
    parts = [model, *_dicts(model.get("model_dict")), *_dicts(model.get("shared_dict"))]
    parts += [part["fitting_net"] for part in parts if isinstance(part.get("fitting_net"), dict)]
    parts += _dicts({key: config.get(key) for key in ("loss", "learning_rate")})
    parts += _dicts(config.get("loss_dict"))
    kinds = [str(part.get("type", "")) for part in parts]
    return any(kind == "mft" or kind.startswith("mft_") for kind in kinds)


def _dicts(section: Any) -> list[dict[str, Any]]:
    values = section.values() if isinstance(section, dict) else []
    return [value for value in values if isinstance(value, dict)]


def _with_pretrained_model(
    config: dict[str, Any], given: dict[str, Path], branch: str
) -> dict[str, Any]:
    """Return the input with the model that ``--use-pretrain-script`` takes from the checkpoint."""
    option = "finetune" if "finetune" in given else "init_model"
    if option not in given:
        return config
    path = checkpoint_path(given[option], finetune=option == "finetune")
    params = read_model_params(path)
    try:
        return take_pretrained_model(config, params, branch, finetune=option == "finetune")
    except (ValueError, KeyError, AssertionError) as error:
        raise UserError(f"--use-pretrain-script with {path}: {error}") from None


def _with_model_branch(config: dict[str, Any], branch: str) -> dict[str, Any]:
    """Return the input with ``--model-branch``, which goes before its ``finetune_head``."""
    if not branch:
        return config
    if "model_dict" in config["model"]:
        raise UserError(
            "--model-branch is for an input of one model; this one has a model_dict: write "
            "finetune_head into its branches"
        )
    return {**config, "model": {**config["model"], "finetune_head": branch}}


@dataclass
class Checked:
    """What the checks have read.

    Attributes
    ----------
    branches : list of Branch
        With every default filled in; none if the input does not fit the schema.
    schedule : Schedule or None
        None if there is an error that keeps deepmd-kit from working it out.
    labels : dict of dict of np.ndarray
        Training labels by branch and property, nframes x columns; NaN where missing.
    """

    branches: list[Branch] = field(default_factory=list)
    schedule: Schedule | None = None
    labels: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)


def check_all(config: dict[str, Any], checkpoints: dict[str, Path], findings: Findings) -> Checked:
    """Check parts, schema, checkpoints, data and schedule.

    Parameters
    ----------
    config : dict
        The whole input, as the user wrote it.
    checkpoints : dict of str to Path
        By the option of ``dp train``: ``finetune``, ``init_model``, ``restart``.
    findings : Findings
        Filled.
    """
    raw = findings.attempt(read_branches, config)
    for branch in raw or []:
        findings.attempt(check_name, branch)
        findings.attempt(check_types, branch)
    full = findings.attempt(normalised, config) if raw is not None else None
    if full is None:
        return Checked()
    branches = read_branches(full)
    check_model(branches, checkpoints, findings)
    findings.attempt(check_validation, full, branches)
    labels = {branch.name: found for branch in branches if (found := check_data(branch, findings))}
    schedule = check_schedule(full, branches, findings) if not findings.errors else None
    for branch in branches:
        check_weights(branch, schedule, findings)
        check_constant(branch, labels.get(branch.name, {}), findings)
    if "finetune" in checkpoints:
        check_heads(branches, checkpoints["finetune"], findings)
    return Checked(branches, schedule, labels)


def check_model(branches: list[Branch], checkpoints: dict[str, Path], findings: Findings) -> None:
    """Check what can be checked without data: heads, losses and checkpoints.

    Parameters
    ----------
    branches : list of Branch
        Of the normalised input.
    checkpoints : dict of str to Path
        As for :func:`check_all`.
    findings : Findings
        Filled.
    """
    for branch in branches:
        findings.attempt(check_same_property, branch)
        findings.attempt(check_edge_dropout, branch)
        findings.attempt(check_references, branch, checkpoints.get("finetune"))
    findings.attempt(check_case_embeddings, branches)
    for option, path in checkpoints.items():
        check_checkpoint(path, branches, findings, option)
