"""The weights that a regulariser holds on to: those of the checkpoint that is fine-tuned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepmd.utils.model_branch_dict import get_model_dict

from deepmd_mft.checkpoints.branch import SINGLE
from deepmd_mft.checkpoints.file import branch_weights, read_state
from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    import torch

DESCRIPTOR = "atomic_model.descriptor."


def read_reference(text: str) -> dict[str, torch.Tensor]:
    """Return the weights of a branch, named as in the branch's model.

    Parameters
    ----------
    text : str
        ``FILE`` or ``FILE:BRANCH``; without a branch the first is taken.

    Raises
    ------
    UserError
        If the file or the branch does not exist.
    """
    path, _, branch = text.rpartition(":")
    if not path or Path(text).exists():
        path, branch = text, ""
    state = read_state(Path(path))
    params = state["_extra_state"]["model_params"]
    if "model_dict" not in params:
        return branch_weights(state, "", Path(path))
    aliases = get_model_dict(params["model_dict"])[0]
    if branch and branch not in aliases:
        raise UserError(
            f"reference {text}: there is no branch '{branch}'; there are "
            f"{', '.join(params['model_dict'])}"
        )
    chosen = aliases[branch] if branch else next(iter(params["model_dict"]))
    return branch_weights(state, chosen or SINGLE, Path(path))


def fit(
    reference: dict[str, torch.Tensor],
    trained: dict[str, Any],
    *,
    what: str,
    text: str,
) -> dict[str, torch.Tensor]:
    """Return the reference of every trained tensor, on its device.

    Parameters
    ----------
    reference : dict of torch.Tensor
        As :func:`read_reference` returns it.
    trained : dict of torch.Tensor
        Names as in the reference.
    what, text : str
        The regulariser and the reference, for messages.

    Raises
    ------
    UserError
        If a tensor is missing in the reference, or has another shape.
    """
    missing = [name for name in trained if name not in reference]
    if missing:
        raise UserError(
            f"{what}: the reference {text} has no {missing[0]} ({len(missing)} of {len(trained)} "
            "tensors are missing): it is another network than the one that is trained. Name the "
            "checkpoint that --finetune starts from"
        )
    for name, tensor in trained.items():
        if reference[name].shape != tensor.shape:
            raise UserError(
                f"{what}: {name} has the shape {tuple(tensor.shape)}, in the reference {text} "
                f"{tuple(reference[name].shape)}: another network. Name the checkpoint that "
                "--finetune starts from"
            )
    return {name: reference[name].to(tensor) for name, tensor in trained.items()}
