"""L2-SP: stay near the weights of the checkpoint (Li et al., ICML 2018, arXiv 1802.01483)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from deepmd_mft.training.regularizers.base import Regularizer, Representation
from deepmd_mft.training.regularizers.reference import DESCRIPTOR, fit, read_reference

if TYPE_CHECKING:
    from deepmd_mft.training.losses.base import Batch


class L2SP(Regularizer):
    """``weight`` times the squared distance of the weights to those of a checkpoint.

    Parameters
    ----------
    weight : float
        Lambda of lambda ||w - w0||^2.
    reference : str
        ``FILE`` or ``FILE:BRANCH``, the checkpoint that ``--finetune`` starts from.
    on : {"backbone", "all"}
        The descriptor alone, or the head as well (which the reference must have).
    """

    type = "l2_sp"

    def __init__(self, weight: float, reference: str, on: str = "backbone") -> None:
        super().__init__(weight)
        self.reference = reference
        self.on = on
        self._held: dict[str, torch.Tensor] = {}

    def value(self, batch: Batch, seen: Representation | None) -> torch.Tensor:
        """Return ||w - w0||^2 over the trained tensors, a scalar."""
        del seen
        trained = self._trained(batch.model)
        new = {name: tensor for name, tensor in trained.items() if name not in self._held}
        if new:  # at the first step, and where layers wake later
            known = read_reference(self.reference, batch.model.get_type_map())
            self._held |= fit(known, new, what="l2_sp", text=self.reference)
        device = batch.inputs["atype"].device
        distance = torch.zeros((), dtype=torch.float64, device=device)
        for name, tensor in trained.items():
            distance = distance + (tensor - self._held[name]).square().sum()
        return distance

    def _trained(self, model: Any) -> dict[str, torch.Tensor]:
        return {
            name: tensor
            for name, tensor in model.named_parameters()
            if tensor.requires_grad and (self.on == "all" or name.startswith(DESCRIPTOR))
        }
