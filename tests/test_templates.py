"""Every input template passes deepmd-kit's schema and this package's checks."""

import json
import subprocess
import sys

import numpy as np
import pytest

from deepmd_mft.inputs.branches import normalised, read_branches
from deepmd_mft.inputs.findings import Findings
from deepmd_mft.inputs.gate import check_model
from deepmd_mft.inputs.parts import check_types
from tests.helpers.dp import ROOT, Dp

TEMPLATES = sorted((ROOT / "input_templates").rglob("*.json"))


def test_files_are_what_the_generator_writes():
    script = ROOT / "input_templates" / "make_templates.py"
    done = subprocess.run(
        [sys.executable, str(script), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_target_has_every_strategy():
    folders = {path.parent for path in TEMPLATES}
    assert len(folders) == 15
    for folder in folders:
        assert {f"input_{s}.json" for s in ("scratch", "ft", "lp", "mft")} <= {
            path.name for path in folder.iterdir()
        }


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda p: str(p.relative_to(ROOT)))
def test_template_is_valid(path):
    config = json.loads(path.read_text())
    branches = read_branches(normalised(config))
    for branch in branches:
        check_types(branch)
    check_model(branches, {}, Findings(stop=True))


def test_published_sizes():
    """DPA-3.1-3M and Table 8 of the MFT paper."""
    config = json.loads((ROOT / "input_templates" / "input_mft.json").read_text())
    descriptor = config["model"]["shared_dict"]["dpa3_descriptor"]
    repflow = descriptor["repflow"]
    assert [repflow[key] for key in ("nlayers", "n_dim", "e_dim", "a_dim")] == [16, 128, 64, 32]
    assert len(config["model"]["shared_dict"]["type_map_all"]) == 118
    for branch in config["model"]["model_dict"].values():
        assert branch["fitting_net"]["dim_case_embd"] == 31
        assert branch["fitting_net"]["neuron"] == [240, 240, 240]
    assert config["training"]["model_prob"] == {"SPICE2": 0.5, "property": 0.5}
    assert config["training"]["numb_steps"] == 100_000


@pytest.mark.parametrize("strategy", ["ft", "lp", "mft"])
def test_strategies_share_one_descriptor(strategy):
    def descriptor(name):
        model = json.loads((ROOT / "input_templates" / f"input_{name}.json").read_text())["model"]
        found = model.get("descriptor") or model["shared_dict"]["dpa3_descriptor"]
        return found.pop("trainable", True), found

    trainable, found = descriptor(strategy)
    assert found == descriptor("scratch")[1]
    assert trainable == (strategy != "lp")


def test_small_templates_of_crystals_train(dp):
    """Filled with two crystals and two classes, as a user would, and trained for two steps."""
    from deepmd_mft.cli import main
    from tests.helpers.systems import write_system

    cell = 7.0 * np.eye(3)
    labels = {"refraction": np.array([[1.5], [2.5], [2.0]]), "kind": np.array([[0], [2], [1]])}
    for name, kind in (("crystals", "refraction"), ("classes", "kind")):
        data = {kind: labels[kind]}
        folder = dp.folder / name
        train = write_system(folder / "train", symbols="Na Cl O Fe", cell=cell, **data)
        template = ROOT / "input_templates" / "small" / f"{name}_scratch.json"
        words = ["--train", str(train), "--valid", str(train), "--steps", "2"]
        assert main(["input", str(template), *words, "-o", str(folder / "input.json")]) == 0
        Dp(folder)("train", "input.json", "--skip-neighbor-stat")
        last = (folder / "lcurve.out").read_text().splitlines()[-1].split()
        assert np.isfinite([float(word) for word in last]).all()
