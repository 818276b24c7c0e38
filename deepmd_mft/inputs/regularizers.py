"""Whether regularisers hold on to the checkpoint that is fine-tuned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from deepmd.utils.model_branch_dict import get_model_dict

from deepmd_mft.checkpoints.file import read_model_params
from deepmd_mft.errors import UserError
from deepmd_mft.inputs.checkpoint import inherited_head
from deepmd_mft.training.regularizers.reference import (
    DESCRIPTOR,
    read_reference,
    reference_branch,
)

if TYPE_CHECKING:
    from pathlib import Path

    from deepmd_mft.inputs.branches import Branch

#: Statistics of the neighbours, which ``dp-mft tighten`` narrows; not learnt.
_STATISTICS = (".mean", ".stddev")


def check_references(branch: Branch, finetune: Path | None) -> None:
    """Check that every ``reference`` can be read, and is what ``--finetune`` starts from.

    Parameters
    ----------
    branch : Branch
    finetune : Path, optional
        The checkpoint of ``--finetune``; at a restart none is compared.

    Raises
    ------
    UserError
        If a reference cannot be read, or has another backbone than the checkpoint.
    """
    for one in branch.loss.get("regularizers") or []:
        text = one.get("reference")
        if text is None or not one.get("weight"):
            continue
        type_map = branch.model["type_map"]
        held = _backbone(text, type_map)
        if finetune is None:
            continue
        if not _equal(held, _backbone(str(finetune), type_map)):
            raise UserError(
                f"{branch.where}: the {one['type']} of the loss holds on to {text}, whose backbone "
                f"is not that of {finetune}, which is fine-tuned; set its reference to {finetune}"
            )
        if one.get("on") == "all":
            _check_branch(branch, text, finetune)


def _check_branch(branch: Branch, text: str, finetune: Path) -> None:
    """Check that a head is held to the one that it starts from."""
    params = read_model_params(finetune)
    head = inherited_head(branch, params)
    name = get_model_dict(params["model_dict"])[0].get(head) if "model_dict" in params else head
    held = reference_branch(text)
    if head is None:
        raise UserError(
            f'{branch.where}: l2_sp with "on": "all" holds the head to {text}, but it is a new one '
            '(finetune_head RANDOM); set "on": "backbone"'
        )
    if name != held:
        raise UserError(
            f'{branch.where}: l2_sp with "on": "all" holds the head to branch {held} of {text}, '
            f"but it starts from {head}; set its reference to {finetune}:{head}"
        )


def _backbone(text: str, type_map: list[str]) -> dict[str, torch.Tensor]:
    return {
        name: value
        for name, value in read_reference(text, type_map).items()
        if name.startswith(DESCRIPTOR) and not name.endswith(_STATISTICS)
    }


def _equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(value, other[name]) for name, value in one.items()
    )
