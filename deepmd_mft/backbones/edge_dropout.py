"""Edge dropout: messages along a random share of the edges are left out while training.

JMP (arXiv 2310.16802, section 4.3) regularises its pretraining this way: each edge is dropped with
probability p, the others weigh 1 / (1 - p), so that the sum of the messages to an atom, and to an
edge, is the same in the mean. The mask is one for all layers of a forward pass, and forces are the
gradient of the energy under it.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from deepmd_mft.backbones.fast_dpa3 import FastRepflows
from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["dropping_edges"]


@contextmanager
def dropping_edges(model: Any, share: float) -> Iterator[None]:
    """Drop edges in the forward passes of a model that is being trained.

    Parameters
    ----------
    model : torch.nn.Module
        With a sped-up DPA-3; in evaluation mode nothing is dropped.
    share : float
        Probability p of an edge to be dropped.

    Raises
    ------
    UserError
        If the descriptor is another one.
    """
    if not share or not model.training:
        yield
        return
    block = getattr(model.atomic_model.descriptor, "repflows", None)
    if not isinstance(block, FastRepflows):
        raise UserError(
            "edge_dropout of the loss needs the faster DPA-3 of this package, which does not run "
            "here (the log says why, above); set edge_dropout to 0"
        )
    if block.masks is None:
        # deepmd-kit seeds torch by `training.seed` and the rank; a restart begins anew
        block.masks = torch.Generator("cpu").manual_seed(torch.initial_seed())
    block.dropped = share
    try:
        yield
    finally:
        block.dropped = 0.0
