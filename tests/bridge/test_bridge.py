"""Fails when deepmd-kit moves what deepmd_mft.bridge and the registrations rely on."""

import inspect
import subprocess
import sys

import numpy as np
import pytest
from deepmd.pt.entrypoints import main as entrypoints
from deepmd.pt.loss.loss import TaskLoss
from deepmd.pt.model.model import BaseModel, PropertyModel
from deepmd.pt.model.task.fitting import Fitting
from deepmd.utils.argcheck import loss_args_plugin, model_args_plugin

from deepmd_mft.bridge import reading, registration


def run_python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_everything_is_registered():
    assert BaseModel.get_class_by_type("mft").__name__ == "MFTModel"
    assert Fitting.get_class_by_type("mft_property").__name__ == "MFTPropertyFittingNet"
    assert TaskLoss.get_class_by_type("mft_property").__name__ == "MFTPropertyLoss"
    assert TaskLoss.get_class_by_type("mft_force_field").__name__ == "MFTForceFieldLoss"
    for name in ("mft_property", "mft_force_field"):
        assert loss_args_plugin.get_argument(name).name == name
    assert model_args_plugin.get_argument("mft").name == "mft"


def test_importing_deepmd_imports_no_model():
    code = "import sys, deepmd.pt; print(*[m for m in sys.modules if m.startswith('deepmd')])"
    modules = run_python(code)
    assert "deepmd_mft.plugin" in modules
    assert not {"deepmd_mft.models", "deepmd_mft.training.losses", "deepmd_mft.schema"} & set(
        modules
    )


@pytest.mark.parametrize(
    ("module", "ours"),
    [
        ("deepmd.utils.argcheck", "deepmd_mft.schema"),
        ("deepmd.pt.model.model", "deepmd_mft.models"),
        ("deepmd.pt.loss", "deepmd_mft.training.losses"),
        ("deepmd.pt.entrypoints.main", "deepmd_mft.inputs.gate"),
    ],
)
def test_each_part_comes_with_the_module_it_extends(module, ours):
    code = f"import sys, deepmd.pt, {module}; print('{ours}' in sys.modules)"
    assert run_python(code) == ["True"]


def test_plugin_pulls_in_nothing_heavy():
    code = (
        "import sys, deepmd.pt; before = set(sys.modules)\n"
        "import deepmd_mft.models, deepmd_mft.training.losses, deepmd_mft.inputs.gate\n"
        "print(*[m for m in ('sklearn', 'matplotlib', 'dpdata', 'ase', 'pandas', 'ot') "
        "if m in sys.modules])"
    )
    assert run_python(code) == []


def test_after_import_acts_at_once_if_the_module_is_there():
    seen = []
    registration.after_import("sys", lambda: seen.append("now"))
    assert seen == ["now"]


def test_native_arguments_have_what_the_schema_relies_on():
    names = {arg.name for arg in registration.native_arguments("fitting", "property")}
    assert {"property_name", "task_dim", "intensive", "distinguish_types", "neuron"} <= names
    names = {arg.name for arg in registration.native_arguments("loss", "ener")}
    assert {"start_pref_e", "limit_pref_e", "start_pref_f", "limit_pref_f"} <= names


def test_main_is_wrapped_and_keeps_its_signature():
    assert entrypoints.main.__wrapped__ is not None
    assert "args" in inspect.signature(entrypoints.main).parameters


def test_methods_that_are_overridden_exist():
    for name in ("change_out_bias", "forward_common", "forward_common_lower", "update_sel"):
        assert hasattr(PropertyModel, name)
    assert "model_params" in inspect.signature(BaseModel.get_model).parameters


def test_frames_read_without_threads_are_the_same():
    """The workaround for deepmd-kit 3.2.0's thread pool a frame; gone upstream, it does nothing."""
    from deepmd.utils import data

    from tests.helpers.dp import DATA, TYPE_MAP

    assert hasattr(data, "ThreadPoolExecutor"), "no thread pool: drop the workaround"
    system = data.DeepmdData(str(DATA / "valid"), type_map=TYPE_MAP)
    system.add("gap", 1, must=True, high_prec=True)
    pool = data.ThreadPoolExecutor
    threaded = system.get_single_frame(7, num_worker=1)
    try:
        reading.read_frames_without_threads()
        inline = system.get_single_frame(7, num_worker=1)
    finally:
        data.ThreadPoolExecutor = pool
    assert threaded.keys() == inline.keys()
    for key, value in threaded.items():
        np.testing.assert_array_equal(inline[key], value)


def test_what_the_analysis_hooks_into():
    """deepmd_mft.bridge.models: load_backbone, message_layers, watch_layer, type_embedding."""
    from deepmd.pt.infer.deep_eval import DeepEval
    from deepmd.pt.model.atomic_model import DPEnergyAtomicModel
    from deepmd.pt.model.descriptor.dpa3 import DescrptDPA3
    from deepmd.pt.model.descriptor.repflow_layer import RepFlowLayer
    from deepmd.pt.model.descriptor.repflows import DescrptBlockRepflows
    from deepmd.pt.model.descriptor.repformers import DescrptBlockRepformers
    from deepmd.pt.model.network.network import TypeEmbedNet

    assert {"head", "no_jit", "auto_batch_size"} <= set(inspect.signature(DeepEval).parameters)
    assert "coord" in inspect.signature(PropertyModel.forward_embedding).parameters
    assert "atomic_feature" in inspect.getsource(DPEnergyAtomicModel.forward_embedding)
    names = list(inspect.signature(DescrptDPA3.forward).parameters)
    assert names[1:4] == ["extended_coord", "extended_atype", "nlist"]
    for block in (DescrptBlockRepflows, DescrptBlockRepformers):
        assert "ll.forward(" in inspect.getsource(block.forward), "layers are called by forward"
    assert "node_ebd_ext" in inspect.signature(RepFlowLayer.forward).parameters
    assert hasattr(TypeEmbedNet, "get_full_embedding")
