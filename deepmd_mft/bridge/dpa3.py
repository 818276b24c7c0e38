"""What deepmd-kit's DPA-3 is made of: :mod:`deepmd_mft.backbones.fast_dpa3` builds on it."""

from deepmd import __version__ as deepmd_version
from deepmd.pt.model.descriptor.dpa3 import DescrptDPA3
from deepmd.pt.model.descriptor.repflow_layer import RepFlowLayer
from deepmd.pt.model.descriptor.repflows import DescrptBlockRepflows
from deepmd.pt.model.task.invar_fitting import InvarFitting
from deepmd.pt.utils.preprocess import compute_exp_sw, compute_smooth_weight

__all__ = [
    "DescrptBlockRepflows",
    "DescrptDPA3",
    "InvarFitting",
    "RepFlowLayer",
    "compute_exp_sw",
    "compute_smooth_weight",
    "deepmd_version",
]
