"""Every head and loss on every descriptor through `dp`: docs/descriptors.md has the table."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

from deepmd_mft.cli import main
from tests.helpers import descriptors
from tests.helpers.dp import DATA, DESCRIPTOR, ROOT, Dp, pretrain_input

FAMILIES = {
    "se_e2_a": descriptors.SE_E2_A,
    "se_atten": {**descriptors.DPA1, "type": "se_atten", "attn_layer": 0},
    "dpa1": descriptors.DPA1,
    "dpa2": descriptors.DPA2,
    "dpa3": DESCRIPTOR,
    "dpa4": descriptors.DPA4,
}
#: Head and loss of every branch, beside the force field.
BRANCHES = {
    "several": (
        {
            "type": "mft_property",
            "property_name": ["r2", "gap"],
            "intensive": [False, True],
            "predict_variance": True,
        },
        {"type": "mft_property", "loss_func": "gaussian_nll"},
    ),
    "extent": (
        {"type": "mft_spatial_extent", "property_name": "r2"},
        {"type": "mft_property", "loss_func": "smooth_mae"},
    ),
    "dipole": ({"type": "mft_dipole_norm", "property_name": "mu"}, {"type": "mft_property"}),
    "classes": (
        {"type": "mft_classification", "property_name": "wide"},
        {"type": "mft_classification"},
    ),
}
#: A plain head, and one that needs vectors of the descriptor; all of DPA-3's are in test_heads.py.
FROZEN = ("several", "dipole")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_head_shares_the_descriptor(tmp_path, labelled, family):
    """A checkpoint of the family, `dp-mft input`, MFT of all heads at once, freeze, test."""
    before = Dp(tmp_path / "before")
    before.folder.mkdir()
    config = pretrain_input()
    config["model"]["shared_dict"]["dpa3_descriptor"] = FAMILIES[family]
    config["training"] |= {"numb_steps": 2, "save_freq": 2, "disp_freq": 1}
    before.train(config)
    checkpoint = before.folder / "model.ckpt-2.pt"

    run = Dp(tmp_path / "run")
    run.folder.mkdir()
    words = ["input", str(ROOT / "input_templates" / "small" / "input_mft.json")]
    words += ["--checkpoint", str(checkpoint), "--no-tighten", "--steps", "10", "--save-freq", "10"]
    for option, folder in (("train", labelled), ("valid", labelled)):
        words += [
            f"--{option}",
            str(folder / option),
            f"--aux-{option}",
            str(DATA / f"aux_{option}"),
        ]
    assert main([*words, "-o", str(run.folder / "filled.json")]) == 0
    config = json.loads((run.folder / "filled.json").read_text())
    with_every_head(config)
    if family == "dpa4":
        message = run.train(config, "--finetune", str(checkpoint), ok=False)
        assert "set vectors: false to use charges only" in message
        assert "Traceback" not in message
        config["model"]["model_dict"]["dipole"]["fitting_net"]["vectors"] = False
    log = run.train(config, "--finetune", str(checkpoint))
    assert "Batch      10" in log
    header, *_, last = (run.folder / "lcurve.out").read_text().splitlines()
    shown = dict(zip(header.lstrip("# ").split(), map(float, last.split()), strict=True))
    assert all(np.isfinite(value) for value in shown.values()), shown
    for name in FROZEN:
        model = ["-m", f"{name}.pth"]
        if family == "dpa4":
            message = run("freeze", "--head", name, "-o", name, ok=False)
            assert "no property model; give the checkpoint itself" in message
            assert "Traceback" not in message
            model = ["-m", "model.ckpt-10.pt", "--head", name]
        else:
            run("freeze", "--head", name, "-o", name)
        log = run("test", *model, "-s", str(labelled / "valid"), "-n", "8")
        assert "PROPERTY RMSE" in log


def with_every_head(config):
    """Replace the property branch by :data:`BRANCHES`."""
    parts = (config["model"]["model_dict"], config["loss_dict"], config["training"]["data_dict"])
    model, _, data = (part.pop("property") for part in parts)
    model.pop("info", None)
    for name, (net, loss) in BRANCHES.items():
        branch = copy.deepcopy(model)
        branch["fitting_net"] = {**net, "neuron": [8, 8], "seed": 1}
        parts[0][name] = branch
        parts[1][name] = dict(loss)
        parts[2][name] = copy.deepcopy(data)
    config["training"]["model_prob"] = dict.fromkeys(parts[0], 1.0)
    config["training"]["disp_freq"] = 10
