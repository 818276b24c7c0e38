"""Checks that run before ``dp --pt train`` starts, on inputs that use this package.

deepmd-kit reads label files when a batch first needs them, so a broken file can stop a run after
hours, and a missing force label of the auxiliary branch is skipped without a word. Everything that
can be known from the files is looked at here, before the first step and before anything is
written. An input without a type of this package is left alone.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepmd.common import j_loader

from deepmd_mft.bridge.reading import read_frames_without_threads
from deepmd_mft.inputs.branches import (
    Branch,
    Findings,
    check_case_embeddings,
    check_parts,
    check_schema,
    read_branches,
)
from deepmd_mft.inputs.checkpoint import check_checkpoint
from deepmd_mft.inputs.data import check_data

if TYPE_CHECKING:
    import argparse

log = logging.getLogger(f"deepmd.{__name__}")  # below deepmd's logger, to share its handlers


def check_command(args: argparse.Namespace) -> None:
    """Check the input of ``dp --pt train``; other commands pass.

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
    branches = read_branches(config)
    if not any(b.is_mft_head or b.is_mft_loss or b.model.get("type") == "mft" for b in branches):
        return
    options = ("finetune", "init_model", "restart")
    given = {option: Path(path) for option in options if (path := getattr(args, option, None))}
    # with --use-pretrain-script the checkpoint fills in the model
    schema = None if getattr(args, "use_pretrain_script", False) else config
    check_all(schema, branches, given, Findings(stop=True))
    read_frames_without_threads()


def check_all(
    config: dict[str, Any] | None,
    branches: list[Branch],
    checkpoints: dict[str, Path],
    findings: Findings,
) -> None:
    """Check schema, branches, checkpoints and data.

    Parameters
    ----------
    config : dict or None
        The whole input, to be held against the schema; None to leave that out.
    branches : list of Branch
    checkpoints : dict of str to Path
        By the option of ``dp train``: ``finetune``, ``init_model``, ``restart``.
    findings : Findings
        Filled.
    """
    for branch in branches:
        findings.attempt(check_parts, branch)
    findings.attempt(check_case_embeddings, branches)
    if config is not None:
        findings.attempt(check_schema, config)
    for option, path in checkpoints.items():
        check_checkpoint(path, branches, findings, finetune=option == "finetune")
    for branch in branches:
        check_data(branch, findings)
