"""The options of a branch of type ``mft``."""

from __future__ import annotations

from dargs import Argument, Variant
from deepmd.utils.argcheck import descrpt_variant_type_args, model_args_plugin

from deepmd_mft.schema.heads import HEADS


@model_args_plugin.register("mft")
def model_mft() -> Argument:
    """Options of a branch of type ``mft``."""
    return Argument(
        "mft",
        dict,
        [
            Argument(
                "descriptor",
                dict,
                [],
                [descrpt_variant_type_args()],
                doc="Any registered descriptor, DPA-3 first. In `model_dict` it is usually the "
                "name of an entry of `shared_dict`, shared with the force-field branch. "
                "`trainable: false` freezes it (linear probing).",
            ),
            Argument(
                "fitting_net",
                dict,
                [],
                [Variant("type", [head() for head in HEADS])],
                doc="The property head.",
            ),
            Argument(
                "model_branch_alias",
                list[str],
                optional=True,
                default=[],
                doc="Other names of this branch, as for a standard model.",
            ),
            Argument(
                "info",
                dict,
                optional=True,
                default={},
                doc="Metadata kept in the checkpoint, as for a standard model.",
            ),
        ],
        doc="A descriptor and a property head. Use it as a branch of `model_dict` beside a "
        "force-field branch (multi-task fine-tuning) or alone (training from scratch, "
        "fine-tuning, linear probing).",
    )
