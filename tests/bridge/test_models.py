"""What the models, heads and the analysis rely on in deepmd-kit's models."""

import inspect

from deepmd.pt.infer.deep_eval import DeepEval
from deepmd.pt.model.atomic_model import DPEnergyAtomicModel
from deepmd.pt.model.descriptor.dpa3 import DescrptDPA3
from deepmd.pt.model.descriptor.repflow_layer import RepFlowLayer
from deepmd.pt.model.descriptor.repflows import DescrptBlockRepflows
from deepmd.pt.model.descriptor.repformers import DescrptBlockRepformers
from deepmd.pt.model.model import BaseModel, PropertyModel
from deepmd.pt.model.network.network import TypeEmbedNet


def test_methods_that_are_overridden_exist():
    for name in ("change_out_bias", "forward_common", "forward_common_lower", "update_sel"):
        assert hasattr(PropertyModel, name)
    assert "model_params" in inspect.signature(BaseModel.get_model).parameters


def test_what_the_analysis_hooks_into():
    """deepmd_mft.bridge.models: load_backbone, message_layers, watch_layer, type_embedding."""
    assert {"head", "no_jit", "auto_batch_size"} <= set(inspect.signature(DeepEval).parameters)
    assert "coord" in inspect.signature(PropertyModel.forward_embedding).parameters
    assert "atomic_feature" in inspect.getsource(DPEnergyAtomicModel.forward_embedding)
    names = list(inspect.signature(DescrptDPA3.forward).parameters)
    assert names[1:4] == ["extended_coord", "extended_atype", "nlist"]
    for block in (DescrptBlockRepflows, DescrptBlockRepformers):
        assert "ll.forward(" in inspect.getsource(block.forward), "layers are called by forward"
    assert "node_ebd_ext" in inspect.signature(RepFlowLayer.forward).parameters
    assert hasattr(TypeEmbedNet, "get_full_embedding")
