"""Terms that keep a fine-tuned backbone near what it was, one file each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deepmd_mft.training.regularizers.feature_drift import FeatureDrift
from deepmd_mft.training.regularizers.l2_sp import L2SP
from deepmd_mft.training.regularizers.spectral_shrinkage import SpectralShrinkage

if TYPE_CHECKING:
    from deepmd_mft.training.regularizers.base import Regularizer

__all__ = ["REGULARIZERS", "build_regularizers"]

REGULARIZERS: dict[str, type[Regularizer]] = {
    kind.type: kind for kind in (L2SP, SpectralShrinkage, FeatureDrift)
}


def build_regularizers(options: list[dict[str, Any]]) -> list[Regularizer]:
    """Build the regularisers of a loss; those of weight 0 are left out, and cost nothing.

    Parameters
    ----------
    options : list of dict
        Each with ``type``, ``weight`` and the options of its type.
    """
    return [
        REGULARIZERS[one["type"]](**{key: value for key, value in one.items() if key != "type"})
        for one in options
        if one["weight"]
    ]
