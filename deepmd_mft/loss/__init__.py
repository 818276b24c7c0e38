"""The losses of this package; importing it registers them."""

from deepmd_mft.loss.classification_loss import MFTClassificationLoss
from deepmd_mft.loss.force_field import MFTForceFieldLoss
from deepmd_mft.loss.property_loss import MFTPropertyLoss

__all__ = ["MFTClassificationLoss", "MFTForceFieldLoss", "MFTPropertyLoss"]
