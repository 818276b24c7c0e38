"""The model type ``mft`` and its heads; importing this package registers them."""

from deepmd_mft.models.heads.classification import MFTClassificationFittingNet
from deepmd_mft.models.heads.dipole_norm import MFTDipoleNormFittingNet
from deepmd_mft.models.heads.property import MFTPropertyFittingNet
from deepmd_mft.models.heads.spatial_extent import MFTSpatialExtentFittingNet
from deepmd_mft.models.mft_model import MFTModel

__all__ = [
    "MFTClassificationFittingNet",
    "MFTDipoleNormFittingNet",
    "MFTModel",
    "MFTPropertyFittingNet",
    "MFTSpatialExtentFittingNet",
]
