"""The model type ``mft`` and its heads; importing this package registers them."""

from deepmd_mft.model.classification import MFTClassificationFittingNet
from deepmd_mft.model.dipole_norm import MFTDipoleNormFittingNet
from deepmd_mft.model.mft_model import MFTModel
from deepmd_mft.model.property_head import MFTPropertyFittingNet
from deepmd_mft.model.spatial_extent import MFTSpatialExtentFittingNet

__all__ = [
    "MFTClassificationFittingNet",
    "MFTDipoleNormFittingNet",
    "MFTModel",
    "MFTPropertyFittingNet",
    "MFTSpatialExtentFittingNet",
]
