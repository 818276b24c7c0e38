"""What the models, heads and the analysis rely on in deepmd-kit's models."""

import inspect

import torch
from deepmd.pt.infer.deep_eval import DeepEval
from deepmd.pt.model.atomic_model import DPEnergyAtomicModel
from deepmd.pt.model.descriptor.dpa3 import DescrptDPA3
from deepmd.pt.model.descriptor.repflow_layer import RepFlowLayer
from deepmd.pt.model.descriptor.repflows import DescrptBlockRepflows
from deepmd.pt.model.descriptor.repformers import DescrptBlockRepformers
from deepmd.pt.model.model import BaseModel, PropertyModel
from deepmd.pt.model.network.network import TypeEmbedNet

from deepmd_mft.bridge import descriptors, models
from tests.helpers.models import build_property, frame, save_checkpoint


def test_methods_that_are_overridden_exist():
    for name in ("change_out_bias", "forward_common", "forward_common_lower", "update_sel"):
        assert hasattr(PropertyModel, name)
    assert "model_params" in inspect.signature(BaseModel.get_model).parameters


def test_what_the_analysis_hooks_into():
    """deepmd_mft.bridge.models: load_backbone; deepmd_mft.bridge.descriptors."""
    assert {"head", "no_jit", "auto_batch_size"} <= set(inspect.signature(DeepEval).parameters)
    assert "coord" in inspect.signature(PropertyModel.forward_embedding).parameters
    assert "atomic_feature" in inspect.getsource(DPEnergyAtomicModel.forward_embedding)
    names = list(inspect.signature(DescrptDPA3.forward).parameters)
    assert names[1:4] == ["extended_coord", "extended_atype", "nlist"]
    for block in (DescrptBlockRepflows, DescrptBlockRepformers):
        assert "ll.forward(" in inspect.getsource(block.forward), "layers are called by forward"
    assert "node_ebd_ext" in inspect.signature(RepFlowLayer.forward).parameters
    assert hasattr(TypeEmbedNet, "get_full_embedding")


def test_a_checkpoint_is_loaded_as_dp_test_loads_it(tmp_path):
    path = str(save_checkpoint(tmp_path / "model.pt"))
    coord, atype, _ = frame()
    model = models.load_model(path, None)
    assert not model.training
    assert not isinstance(model, torch.jit.ScriptModule)
    backbone = models.load_backbone(path, None)
    embedding = backbone.forward_embedding(coord, atype)["atomic_feature"]
    descriptor = model.get_descriptor()
    assert embedding.shape == (1, 9, descriptor.get_dim_out())
    assert descriptors.type_embedding(descriptor).shape[0] == 5


def test_layers_are_seen_as_deepmd_calls_them():
    model = build_property()
    layers, seen = list(model.get_descriptor().repflows.layers), []
    for layer in layers:
        descriptors.watch_layer(layer, seen.append)
    coord, atype, _ = frame()
    model(coord, atype)
    assert [output.shape for output in seen] == [(1, 9, 12)] * len(layers) == [(1, 9, 12)] * 2


def test_a_frozen_model_is_loaded(tmp_path):
    model = build_property()
    torch.jit.save(torch.jit.script(model), tmp_path / "model.pth")
    coord, atype, _ = frame()
    with models.no_jit_warm_up():
        got = models.load_frozen(str(tmp_path / "model.pth"))(coord, atype)["gap"]
    torch.testing.assert_close(got, model(coord, atype)["gap"])
