"""The losses ``mft_property`` and ``mft_force_field``; importing this package registers them."""

from deepmd_mft.loss.force_field import MFTForceFieldLoss
from deepmd_mft.loss.property_loss import MFTPropertyLoss

__all__ = ["MFTForceFieldLoss", "MFTPropertyLoss"]
