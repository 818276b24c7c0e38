"""Whether the parts of a branch, and the branches, belong together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from deepmd_mft.checkpoints.branch import as_list
from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    from deepmd_mft.inputs.branches import Branch

LOSSES_OF_HEADS = {
    "mft_property": ("mft_property", "property"),
    "mft_spatial_extent": ("mft_property",),
    "mft_dipole_norm": ("mft_property",),
    "mft_classification": ("mft_classification",),
}
#: A ``finetune_head`` that is no head.
RANDOM = "RANDOM"
#: What the name of a branch would be taken for in the names of the parameters.
PARTS = {"model", "loss", "atomic_model", "descriptor", "fitting_net", "repflows", "layers"}
ENERGY_HEADS = ("ener", "direct_force_ener", "dpa4_ener")


def is_taken(name: str) -> bool:
    """Whether deepmd-kit or torch would take the name of a branch for something else."""
    return name in {RANDOM, *PARTS} or name.isdigit() or hasattr(torch.nn.ModuleDict(), name)


def check_name(branch: Branch) -> None:
    """Check that torch can take a branch by its name, and deepmd-kit finds its parameters."""
    if "." in branch.name or is_taken(branch.name):
        raise UserError(
            f"{branch.where} of model/model_dict: a branch cannot have this name, which torch or "
            "deepmd-kit take for a part of the names of parameters; rename it in model_dict, "
            "loss_dict and data_dict (without dots, and not only digits)"
        )


def check_types(branch: Branch) -> None:
    """Check that model type, head and loss of a branch belong together.

    Before the schema is asked, whose message would be that a key is unknown.
    """
    model_type = branch.model.get("type", "standard")
    head, loss = branch.head, branch.loss_type
    if branch.is_mft_head and model_type != "mft":
        raise UserError(
            f'{branch.where}: fitting_net type "{head}" needs "type": "mft" beside the '
            f'fitting_net (it is "{model_type}")'
        )
    if branch.is_mft_head and loss not in LOSSES_OF_HEADS.get(head, (loss,)):
        raise UserError(
            f'{branch.where}: fitting_net type "{head}" needs a loss of type '
            f'"{LOSSES_OF_HEADS[head][0]}" (it is "{loss}")'
        )
    if loss == "mft_force_field" and head not in ENERGY_HEADS:
        raise UserError(
            f'{branch.where}: a loss of type "mft_force_field" belongs to an energy fitting '
            f'net ("ener"), this one is "{head}"'
        )
    if loss in ("mft_property", "mft_classification") and not branch.is_mft_head:
        raise UserError(
            f'{branch.where}: a loss of type "{loss}" belongs to a fitting net of type "{loss}" '
            f'in a model of type "mft", this one is "{head}"'
        )


def check_edge_dropout(branch: Branch) -> None:
    """Check that a loss with ``edge_dropout`` has a descriptor that drops edges."""
    if not branch.loss.get("edge_dropout"):
        return
    from deepmd_mft.backbones.switch import stops_at_many_neighbours  # noqa: PLC0415  (slow)

    descriptor = branch.model.get("descriptor") or {}
    if not stops_at_many_neighbours(descriptor):
        raise UserError(
            f"{branch.where}: edge_dropout of the loss needs the faster DPA-3 of this package, "
            f"which the descriptor ({descriptor.get('type')}) does not run with; take a dpa3 with "
            "use_dynamic_sel (and no DP_MFT_FAST=0), or set edge_dropout to 0"
        )


def check_same_property(branch: Branch) -> None:
    """Check that head and loss mean the same property; what a loss leaves out is the head's."""
    if not branch.is_mft_head:
        return
    names = list(branch.labels)
    for key in ("property_name", "task_dim", "num_classes"):
        in_head, in_loss = branch.fitting_net.get(key), branch.loss.get(key)
        if None in (in_head, in_loss) or _spread(in_head, names) == _spread(in_loss, names):
            continue
        raise UserError(
            f"{branch.where}: {key} is {in_head!r} in the fitting_net and {in_loss!r} in the "
            "loss; make them equal, or leave it out of the loss"
        )
    for part, key in ((branch.fitting_net, "intensive"), (branch.loss, "weight")):
        values = as_list(part.get(key))
        if len(values) not in (0, 1, len(names)):
            raise UserError(
                f"{branch.where}: {key} has {len(values)} entries for {len(names)} properties "
                f"({', '.join(names)}); give one for each, or a single value for all"
            )


def check_case_embeddings(branches: list[Branch]) -> None:
    """Check that all branches take a case embedding of one width."""
    dims = {branch.name: branch.fitting_net.get("dim_case_embd", 0) for branch in branches}
    if len(set(dims.values())) > 1:
        listed = ", ".join(f"{name}: {dim}" for name, dim in dims.items())
        raise UserError(
            f"dim_case_embd must be equal in the fitting nets of all branches ({listed}). A "
            "branch taken from a checkpoint fixes it: set the others to the checkpoint's value "
            "(31 for DPA-3.1-3M)"
        )


def _spread(value: Any, names: list[str]) -> list[Any]:
    """Return one value per property: a single one holds for all."""
    values = as_list(value)
    return values * len(names) if len(values) == 1 else values
