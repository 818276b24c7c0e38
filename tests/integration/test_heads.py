"""Every head through `dp`: multi-task fine-tuning, freezing, testing."""

import json

import numpy as np
import pytest

from tests.helpers.dp import DATA, Dp, mft_input

HEADS = {
    "spatial_extent": (
        {"type": "mft_spatial_extent", "property_name": "r2"},
        {"type": "mft_property", "property_name": "r2", "metric": ["mae", "r2"]},
    ),
    "dipole_norm": (
        {"type": "mft_dipole_norm", "property_name": "mu"},
        {"type": "mft_property", "property_name": "mu"},
    ),
    "two_classes": (
        {"type": "mft_classification", "property_name": "wide"},
        {
            "type": "mft_classification",
            "property_name": "wide",
            "metric": ["accuracy", "roc_auc", "cross_entropy"],
        },
    ),
    "several": (
        {
            "type": "mft_property",
            "property_name": ["mu", "r2"],
            "intensive": [True, False],
            "predict_variance": True,
        },
        {
            "type": "mft_property",
            "property_name": ["mu", "r2"],
            "loss_func": "gaussian_nll",
            "missing_labels": "mask",
            "weight": [1.0, 0.5],
        },
    ),
}


@pytest.mark.parametrize("name", HEADS)
def test_mft_freeze_and_test(dp: Dp, pretrained, labelled, name):
    net, loss = HEADS[name]
    text = json.dumps(mft_input())
    for folder in ("train", "valid"):
        text = text.replace(str(DATA / folder), str(labelled / folder))
    config = json.loads(text)
    branch = config["model"]["model_dict"]["property"]
    branch["fitting_net"] = {**net, "neuron": [12, 12], "seed": 1}
    config["loss_dict"]["property"] = loss
    config["loss_dict"]["GFN2"]["force_reduction"] = "structure"
    dp.train(config, "--finetune", str(pretrained))
    header, *_, last = (dp.folder / "lcurve.out").read_text().splitlines()
    shown = dict(zip(header.lstrip("# ").split(), map(float, last.split()), strict=True))
    # a batch of three frames may hold one class only, for which there is no ROC
    assert all(np.isfinite(value) for key, value in shown.items() if "roc_auc" not in key), shown
    dp("freeze", "--head", "property", "-o", "model")
    log = dp("test", "-m", "model.pth", "-s", str(labelled / "valid"), "-n", "8")
    assert "PROPERTY RMSE" in log
