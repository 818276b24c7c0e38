"""The JSON options of every registered type, as dargs arguments.

deepmd-kit checks an input against them, and ``dp-mft doc`` prints them; nothing about an option is
written twice. Where a native option exists, its name, default and meaning are deepmd-kit's own.
"""

from deepmd_mft.schema.heads import HEADS
from deepmd_mft.schema.losses import (
    loss_mft_classification,
    loss_mft_force_field,
    loss_mft_property,
)
from deepmd_mft.schema.model import model_mft
from deepmd_mft.schema.rates import learning_rate_mft

__all__ = [
    "HEADS",
    "learning_rate_mft",
    "loss_mft_classification",
    "loss_mft_force_field",
    "loss_mft_property",
    "model_mft",
]
