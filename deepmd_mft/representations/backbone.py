"""Checkpoints as the analysis takes them: a file, a branch, a name in the figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from deepmd_mft.bridge.models import load_backbone
from deepmd_mft.checkpoints.branch import choose_branch
from deepmd_mft.checkpoints.file import branch_weights, read_state
from deepmd_mft.errors import UserError
from deepmd_mft.files.checksums import file_checksum
from deepmd_mft.inference.network import Network

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Backbone", "load_checkpoint"]


class Backbone(Network):
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

    def __init__(self, name: str, model: Any, record: dict[str, Any]) -> None:
        super().__init__(model)
        self.name = name
        self.record = record

    @property
    def nlayers(self) -> int:
        """Number of message-passing layers; 0 if the descriptor has none."""
        return len(self.family.layers(self.descriptor))

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the trained tensors of the descriptor by name."""
        return {k: v.detach().cpu() for k, v in self.descriptor.named_parameters()}


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
    state = read_state(path)

    def sharing(branches: dict[str, Any]) -> list[str]:
        names = list(branches)
        return names[:1] if _same_descriptor(state, names, path) else names

    params = state["_extra_state"]["model_params"]
    branch = choose_branch(params, path, branch, sharing, "descriptors of their own") or None
    model = load_backbone(str(path), branch)
    if not hasattr(model.atomic_model, "descriptor"):
        raise UserError(
            f"model {name}: {path} has no single descriptor ({type(model).__name__}); combined and "
            "tabulated models cannot be looked into"
        )
    record = {"path": str(path), "sha256": file_checksum(path), "branch": branch}
    return Backbone(name, model, record)


def _same_descriptor(state: dict[str, Any], branches: list[str], path: Path) -> bool:
    """Whether all branches have one descriptor."""

    def weights(branch: str) -> dict[str, torch.Tensor]:
        prefix = "atomic_model.descriptor."
        parts = branch_weights(state, branch, path)
        # statistics of the neighbours, not learnt, may differ between branches
        return {
            k: v
            for k, v in parts.items()
            if k.startswith(prefix) and k.split(".")[-1] not in {"mean", "stddev"}
        }

    mine = weights(branches[0])
    return all(
        mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine)
        for theirs in map(weights, branches[1:])
    )
