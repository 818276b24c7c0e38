"""Types are registered when the deepmd-kit module that they extend is imported."""

import subprocess
import sys

import pytest
from deepmd.pt.loss.loss import TaskLoss
from deepmd.pt.model.model import BaseModel
from deepmd.pt.model.task.fitting import Fitting
from deepmd.utils.argcheck import loss_args_plugin, model_args_plugin

from deepmd_mft.bridge import registration
from deepmd_mft.models.mft_model import HEADS


def run_python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_everything_is_registered():
    assert BaseModel.get_class_by_type("mft").__name__ == "MFTModel"
    assert model_args_plugin.get_argument("mft").name == "mft"
    for head in HEADS:
        assert Fitting.get_class_by_type(head).__module__.startswith("deepmd_mft.models.heads.")
    for name in ("mft_property", "mft_classification", "mft_force_field"):
        loss = TaskLoss.get_class_by_type(name)
        assert loss.__module__.startswith("deepmd_mft.training.losses.")
        assert loss_args_plugin.get_argument(name).name == name


def test_importing_deepmd_imports_no_model():
    code = "import sys, deepmd.pt; print(*[m for m in sys.modules if m.startswith('deepmd')])"
    modules = run_python(code)
    assert "deepmd_mft.plugin" in modules
    ours = {"deepmd_mft.models", "deepmd_mft.training.losses", "deepmd_mft.schema"}
    assert not ours & set(modules)


EXTENDED = [
    ("deepmd.utils.argcheck", "deepmd_mft.schema"),
    ("deepmd.pt.model.model", "deepmd_mft.models"),
    ("deepmd.pt.loss", "deepmd_mft.training.losses"),
    ("deepmd.pt.train.training", "deepmd_mft.bridge.training"),
    ("deepmd.pt.train.training", "deepmd_mft.training.rates"),
    ("deepmd.pt.entrypoints.main", "deepmd_mft.inputs.gate"),
]


@pytest.mark.parametrize("looked_for", [False, True])
def test_each_part_comes_with_the_module_it_extends(looked_for):
    """Also if another package looks for the modules first, as ``importlib.util.find_spec`` does."""
    code = (
        "import importlib, importlib.util, sys, deepmd.pt\n"
        f"extended = {EXTENDED}\n"
        f"if {looked_for}:\n"
        "    for module, _ in extended: assert importlib.util.find_spec(module)\n"
        "for module, ours in extended:\n"
        "    importlib.import_module(module); print(ours in sys.modules)\n"
    )
    assert run_python(code) == ["True"] * len(EXTENDED)


def test_plugin_pulls_in_nothing_heavy():
    code = (
        "import sys, deepmd.pt; before = set(sys.modules)\n"
        "import deepmd_mft.models, deepmd_mft.training.losses, deepmd_mft.schema\n"
        "import deepmd_mft.inputs.gate\n"
        "print(*[m for m in ('sklearn', 'matplotlib', 'dpdata', 'ase', 'pandas', 'ot') "
        "if m in sys.modules])"
    )
    assert run_python(code) == []


def test_native_arguments_have_what_the_schema_relies_on():
    names = {arg.name for arg in registration.native_arguments("fitting", "property")}
    assert {"property_name", "task_dim", "intensive", "distinguish_types", "neuron"} <= names
    names = {arg.name for arg in registration.native_arguments("loss", "ener")}
    assert {"start_pref_e", "limit_pref_e", "start_pref_f", "limit_pref_f"} <= names
