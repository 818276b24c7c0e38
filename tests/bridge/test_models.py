"""What the models, heads and the analysis rely on in deepmd-kit's models."""

import inspect
import json

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
from tests.helpers.models import build_property, frame, save_checkpoint, with_statistics


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


def test_a_type_map_is_changed_by_deepmd_itself():
    """deepmd_mft.bridge.models: build_model, change_types, types_among."""
    coord, atype, _ = frame()
    model = with_statistics(build_property())
    params = json.loads(model.model_def_script)
    same = models.build_model(params, model.state_dict())
    names = params["type_map"]
    symbols = [names[int(one)] for one in atype[0]]
    found = models.molecule_outputs(same, symbols, coord.numpy())
    torch.testing.assert_close(found["gap"], model(coord, atype)["gap"])
    state = models.change_types(same, names[::-1])
    turned = models.build_model({**params, "type_map": names[::-1]}, state)
    again = models.molecule_outputs(turned, symbols, coord.numpy())
    torch.testing.assert_close(again["gap"], found["gap"], rtol=1e-12, atol=0)
    assert models.types_among(["H", "C", "O"], ["O", "H"], [0, 1]) == [1]
    assert models.types_among(["H", "C", "O"], ["O", "H"], [[2, 0], [0, 1]]) == [[0, 1]]


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
