"""Batch spectral shrinkage (Chen et al., NeurIPS 2019): let features go that carry nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from deepmd_mft.errors import UserError
from deepmd_mft.training.regularizers.base import Regularizer, Representation

if TYPE_CHECKING:
    from deepmd_mft.training.losses.base import Batch


class SpectralShrinkage(Regularizer):
    """Squares of the smallest singular values of the batch's pooled last-layer features.

    Features whose singular values are small do not transfer; shrinking them suppresses the
    directions that would carry over what fits the source alone.

    Parameters
    ----------
    weight : float
    k : int
        How many singular values, the smallest first.
    """

    type = "spectral_shrinkage"
    needs_representation = True

    def __init__(self, weight: float, k: int = 1) -> None:
        super().__init__(weight)
        self.k = k

    def value(self, batch: Batch, seen: Representation | None) -> torch.Tensor:
        """Return the sum of the k smallest squared singular values, a scalar."""
        assert seen is not None  # noqa: S101  (needs_representation)
        mask = (batch.inputs["atype"] >= 0).to(seen.node.dtype).unsqueeze(-1)
        pooled = (seen.node * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
        singular = torch.linalg.svdvals(pooled.double())  # descending
        if self.k > len(singular):
            raise UserError(
                f"spectral_shrinkage: k is {self.k}, but a batch of {len(pooled)} frames with "
                f"{pooled.shape[1]} features has {len(singular)} singular values; lower k, or "
                "raise batch_size"
            )
        return singular[-self.k :].square().sum()
