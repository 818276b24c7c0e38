"""Feature drift: the representation of the batch stays near the pretrained one's."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch

from deepmd_mft.training.regularizers.base import Regularizer, Representation
from deepmd_mft.training.regularizers.reference import DESCRIPTOR, fit, read_reference

if TYPE_CHECKING:
    from deepmd_mft.training.losses.base import Batch


class FeatureDrift(Regularizer):
    """Squared distance of the atoms' representations to those of the frozen checkpoint.

    In units of the mean square of the latter, over the atoms of the batch: 0 at the start, 1 where
    the representation has gone as far as it is long. Costs one forward pass of the descriptor.

    Parameters
    ----------
    weight : float
    reference : str
        ``FILE`` or ``FILE:BRANCH``, the checkpoint that ``--finetune`` starts from.
    """

    type = "feature_drift"
    needs_representation = True

    def __init__(self, weight: float, reference: str) -> None:
        super().__init__(weight)
        self.reference = reference
        # in a list, so that torch does not take it for a part of the loss
        self._frozen: list[Any] = []

    def value(self, batch: Batch, seen: Representation | None) -> torch.Tensor:
        """Return the relative drift of the batch, a scalar."""
        assert seen is not None  # noqa: S101  (needs_representation)
        if not self._frozen:
            self._frozen.append(self._freeze(batch.model))
        with torch.no_grad():
            before = self._frozen[0](*seen.arguments, **seen.keywords)[0]
        real = batch.inputs["atype"] >= 0
        drift = (seen.node - before)[real].square().mean()
        return drift / before[real].square().mean()

    def _freeze(self, model: Any) -> Any:
        """Return a copy of the model's descriptor with the reference's weights."""
        descriptor = copy.deepcopy(model.get_descriptor())
        parameters = {DESCRIPTOR + name: p for name, p in descriptor.named_parameters()}
        held = fit(
            read_reference(self.reference, model.get_type_map()),
            parameters,
            what="feature_drift",
            text=self.reference,
        )
        for name, parameter in parameters.items():
            parameter.data.copy_(held[name])
            parameter.requires_grad_(False)
        return descriptor.eval()
