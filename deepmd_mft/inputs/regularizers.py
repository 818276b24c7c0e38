"""Whether regularisers hold on to the checkpoint that is fine-tuned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from deepmd_mft.errors import UserError
from deepmd_mft.training.regularizers.reference import DESCRIPTOR, read_reference

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
        held = _backbone(text)
        if finetune is not None and not _equal(held, _backbone(str(finetune))):
            raise UserError(
                f"{branch.where}: the {one['type']} of the loss holds on to {text}, whose backbone "
                f"is not that of {finetune}, which is fine-tuned; set its reference to {finetune}"
            )


def _backbone(text: str) -> dict[str, torch.Tensor]:
    return {
        name: value
        for name, value in read_reference(text).items()
        if name.startswith(DESCRIPTOR) and not name.endswith(_STATISTICS)
    }


def _equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(value, other[name]) for name, value in one.items()
    )
