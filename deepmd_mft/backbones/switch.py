"""Which models get the faster DPA-3, and the one switch that turns it off."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from deepmd_mft.backbones.activations import is_covered
from deepmd_mft.backbones.fast_dpa3 import SWITCH, speed_up
from deepmd_mft.backbones.memory import keep_memory
from deepmd_mft.bridge.dpa3 import DescrptDPA3, InvarFitting, deepmd_version

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch

log = logging.getLogger(f"deepmd.{__name__}")  # below deepmd's logger, to share its handlers

#: Releases of deepmd-kit whose DPA-3 was compared with this one.
TESTED = ("3.2.0",)
#: Of a descriptor; numpy, which evaluates tanh here, has no bfloat16.
PRECISIONS = ("default", "float64", "float32", "float16")


def why_not(descriptor: Any) -> str:
    """Return why a descriptor cannot be sped up; empty if it can."""
    if not isinstance(descriptor, DescrptDPA3):
        return f"{type(descriptor).__name__} is no DPA-3"
    if os.environ.get(SWITCH, "1") == "0":
        return f"{SWITCH}=0"
    if deepmd_version not in TESTED:
        return (
            f"deepmd-kit {deepmd_version} was not compared with (only {', '.join(TESTED)} was); "
            "deepmd-kit's own code runs"
        )
    block = descriptor.repflows
    needed = {
        "use_dynamic_sel": True,
        "sequential_update": False,
        "n_multi_edge_message": 1,
        "update_style": "res_residual",
        "update_angle": True,
    }
    for name, covered in needed.items():
        if getattr(block, name) != covered:
            return f"{name}: {getattr(block, name)} is not covered (only {covered} is)"
    if block.precision not in PRECISIONS:
        return f"precision {block.precision} is not covered (only {', '.join(PRECISIONS)} are)"
    if not is_covered(block.activation_function):
        return f"activation_function {block.activation_function} is not covered"
    return ""


def stops_at_many_neighbours(descriptor: dict[str, Any]) -> bool:
    """Whether a descriptor, by its JSON, may be sped up and then leaves no neighbour out.

    Parameters
    ----------
    descriptor : dict
        Normalised.
    """
    dynamic = descriptor.get("repflow", {}).get("use_dynamic_sel", False)
    return descriptor.get("type") == "dpa3" and dynamic and os.environ.get(SWITCH, "1") != "0"


def speed_up_models(models: Iterable[torch.nn.Module]) -> None:
    """Speed up the models with a DPA-3 that is covered; say so if one is not.

    Parameters
    ----------
    models : iterable of torch.nn.Module
        Uncompiled models of deepmd-kit. They stay what they are: the same class, parameters, state
        and results.
    """
    reasons = set()
    for model in models:
        descriptor = getattr(model.atomic_model, "descriptor", None)
        if not isinstance(descriptor, DescrptDPA3):
            continue
        reason = why_not(descriptor)
        reasons.add(reason)
        if not reason:
            speed_up(descriptor, equivariant=uses_rotation(model.atomic_model.fitting_net))
    for reason in sorted(reasons - {""}):
        log.warning("DPA-3 is not sped up: %s", reason)
    if "" in reasons:
        log.info("DPA-3 is sped up (%s=0 leaves deepmd-kit's own code in place)", SWITCH)
        keep_memory()


def uses_rotation(fitting_net: Any) -> bool:
    """Whether a head uses the descriptor's equivariant vectors; True where that is not known."""
    if not isinstance(fitting_net, InvarFitting):
        return True
    return bool(getattr(fitting_net, "nvectors", 0))  # mft_dipole_norm
