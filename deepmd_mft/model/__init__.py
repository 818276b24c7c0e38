"""The model type ``mft`` and its heads; importing this package registers them."""

from deepmd_mft.model.property_fitting import MFTPropertyFittingNet
from deepmd_mft.model.property_model import MFTModel

__all__ = ["MFTModel", "MFTPropertyFittingNet"]
