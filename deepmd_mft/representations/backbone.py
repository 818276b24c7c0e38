"""Checkpoints as the analysis takes them: a file, a branch, a name in the figures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from deepmd.utils.model_branch_dict import get_model_dict

from deepmd_mft.bridge.models import load_backbone, message_layers
from deepmd_mft.checkpoints.file import read_model_params
from deepmd_mft.errors import UserError
from deepmd_mft.files.checksums import file_checksum

__all__ = ["Backbone", "load_checkpoint", "parse_model"]


@dataclass(frozen=True)
class Backbone:
    """A loaded branch of a checkpoint.

    Parameters
    ----------
    name : str
        What figures and tables call it.
    model : torch.nn.Module
        The branch's model, its head handing the descriptor through.
    record : dict
        Path, checksum and branch, for the artefacts.
    """

    name: str
    model: Any
    record: dict[str, Any]

    @property
    def descriptor(self) -> Any:
        """The descriptor, a ``torch.nn.Module``."""
        return self.model.atomic_model.descriptor

    @property
    def type_map(self) -> list[str]:
        """Elements that the branch knows."""
        return list(self.model.get_type_map())

    @property
    def nlayers(self) -> int:
        """Number of message-passing layers; 0 if the descriptor has none."""
        return len(message_layers(self.descriptor))

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the trained tensors of the descriptor by name."""
        return {k: v.detach().cpu() for k, v in self.descriptor.named_parameters()}


def parse_model(text: str) -> tuple[str, Path, str | None]:
    """Split ``NAME=FILE`` or ``NAME=FILE:BRANCH``.

    Returns
    -------
    name : str
    path : Path
    branch : str or None
    """
    name, equals, rest = text.partition("=")
    if not (equals and name and rest):
        raise UserError(f"'{text}': write a model as NAME=FILE or NAME=FILE:BRANCH")
    path, colon, branch = rest.rpartition(":")
    if not colon or Path(rest).exists():
        return name, Path(rest), None
    return name, Path(path), branch


def load_checkpoint(name: str, path: Path, branch: str | None = None) -> Backbone:
    """Load the descriptor of one branch of a ``.pt`` checkpoint.

    Parameters
    ----------
    name : str
        What to call it.
    path : Path
        A checkpoint of ``dp --pt train``, native or of this package.
    branch : str, optional
        A branch or alias of a multi-task checkpoint. Without it, the first branch, as long as
        all branches share one descriptor.

    Returns
    -------
    Backbone

    Raises
    ------
    UserError
        If the file is no checkpoint, or the branch is missing or has to be said.
    """
    if path.suffix == ".pth":
        raise UserError(
            f"model {name}: {path} is frozen, its layers cannot be looked into; give the .pt "
            "checkpoint that it was frozen from"
        )
    if path.suffix != ".pt" and path.is_file():
        raise UserError(f"model {name}: {path} is no checkpoint of `dp --pt train`, a .pt file")
    params = read_model_params(path)
    if "model_dict" in params:
        branch = _choose_branch(name, path, params["model_dict"], branch)
    elif branch is not None:
        raise UserError(
            f"model {name}: {path} is a single-task checkpoint and has no branch '{branch}'; leave "
            "it out"
        )
    model = load_backbone(str(path), branch)
    if not hasattr(model.atomic_model, "descriptor"):
        raise UserError(
            f"model {name}: {path} has no single descriptor ({type(model).__name__}); combined and "
            "tabulated models cannot be looked into"
        )
    record = {"path": str(path), "sha256": file_checksum(path), "branch": branch}
    return Backbone(name, model, record)


def _choose_branch(name: str, path: Path, branches: dict[str, Any], branch: str | None) -> str:
    aliases = get_model_dict(branches)[0]
    if branch is not None:
        if branch not in aliases:
            raise UserError(
                f"model {name}: {path} has no branch '{branch}'; it has {', '.join(branches)}. "
                f"Write {name}={path}:BRANCH"
            )
        return branch
    first, *others = branches
    if others and not _same_descriptor(path, first, others):
        raise UserError(
            f"model {name}: the branches of {path} have descriptors of their own "
            f"({', '.join(branches)}); write {name}={path}:BRANCH"
        )
    return first


def _same_descriptor(path: Path, first: str, others: list[str]) -> bool:
    state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    state = state.get("model", state)

    def weights(branch: str) -> dict[str, torch.Tensor]:
        prefix = f"model.{branch}.atomic_model.descriptor."
        parts = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        # statistics of the neighbours, not learnt, may differ between branches
        return {k: v for k, v in parts.items() if k.split(".")[-1] not in {"mean", "stddev"}}

    mine = weights(first)
    return all(
        mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine)
        for theirs in map(weights, others)
    )
