"""The weights that a regulariser holds on to: those of the checkpoint that is fine-tuned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepmd.utils.model_branch_dict import get_model_dict

from deepmd_mft.bridge.models import with_type_map
from deepmd_mft.checkpoints.branch import SINGLE, branches_of
from deepmd_mft.checkpoints.file import branch_weights, read_state
from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

DESCRIPTOR = "atomic_model.descriptor."


def read_reference(text: str, type_map: Sequence[str]) -> dict[str, torch.Tensor]:
    """Return the weights of a branch, named as in the branch's model.

    Parameters
    ----------
    text : str
        ``FILE`` or ``FILE:BRANCH``; without a branch the first is taken.
    type_map : sequence of str
        Elements of the model that is held to it, in their order; the weights are for these.

    Raises
    ------
    UserError
        If the file, the branch or an element does not exist.
    """
    params, weights = _read(text)
    old = list(params["type_map"])
    if old == list(type_map):
        return weights
    new = [name for name in type_map if name not in old]
    if new:
        raise UserError(
            f"reference {text}: it does not have {', '.join(new)} of the model's type_map, for "
            "which there is nothing to hold on to; leave these elements out, or the regulariser"
        )
    try:
        return with_type_map(params, weights, type_map)
    except NotImplementedError as error:
        raise UserError(
            f"reference {text}: deepmd-kit cannot change its type_map ({error}); give the model "
            f"that of the reference, {' '.join(old)}"
        ) from None


def reference_branch(text: str) -> str:
    """Return the branch that a reference is of, by its own name; ``Default`` of a single-task one.

    Raises
    ------
    UserError
        As :func:`read_reference`.
    """
    return _open(text)[2] or SINGLE


def _read(text: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return the JSON and the weights of the branch of a reference."""
    path, state, branch = _open(text)
    params = state["_extra_state"]["model_params"]
    return branches_of(params)[branch], branch_weights(state, branch, path)


def _open(text: str) -> tuple[Path, dict[str, Any], str]:
    """Return file, state and branch of a reference; an empty branch of a single-task one."""
    path, _, branch = text.rpartition(":")
    if not path or Path(text).exists():
        path, branch = text, ""
    state = read_state(Path(path))
    params = state["_extra_state"]["model_params"]
    if "model_dict" not in params:
        return Path(path), state, ""
    aliases = get_model_dict(params["model_dict"])[0]
    if branch and branch not in aliases:
        raise UserError(
            f"reference {text}: there is no branch '{branch}'; there are "
            f"{', '.join(params['model_dict'])}"
        )
    chosen = aliases[branch] if branch else next(iter(params["model_dict"]))
    return Path(path), state, str(chosen)


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
