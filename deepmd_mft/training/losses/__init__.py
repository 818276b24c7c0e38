"""The losses of this package; importing it registers them."""

from deepmd_mft.training.losses.classification import MFTClassificationLoss
from deepmd_mft.training.losses.force_field import MFTForceFieldLoss
from deepmd_mft.training.losses.property import MFTPropertyLoss

__all__ = ["MFTClassificationLoss", "MFTForceFieldLoss", "MFTPropertyLoss"]
