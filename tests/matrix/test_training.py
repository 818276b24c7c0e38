"""A few layouts through a real `dp --pt train`: what it has seen shows in the statistics."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from tests.helpers.dp import Dp, single_input
from tests.helpers.sets import molecules, write_set

CASES = {
    "linked systems": ("linked", []),
    "no type map": ("no type map", []),
    "a label missing in the first of two sets": ("two sets", [0, 1, 2, 4, 5]),
    "labels missing in an LMDB": ("lmdb", [1, 6, 7]),
}


def training(tmp_path, layout, absent, *, mask):
    frames = molecules()
    for row in absent:
        frames[row].gap = np.nan
    data = write_set(tmp_path / "set", layout, frames)
    valid = write_set(tmp_path / "valid", "mixed", molecules(4))
    config = copy.deepcopy(single_input())
    config["model"]["fitting_net"]["bias"] = "mean"
    config["loss"]["missing_labels"] = "mask" if mask else "error"
    for section, folder in (("training_data", data), ("validation_data", valid)):
        config["training"][section] = {"systems": str(folder), "batch_size": "auto:16"}
    config["training"].update(numb_steps=2, disp_freq=1, save_freq=2)
    return config, [frame.gap for frame in frames]


@pytest.mark.parametrize("name", CASES)
def test_bias_and_scale_are_those_of_the_labels(tmp_path, name):
    config, gaps = training(tmp_path, *CASES[name], mask=True)
    Dp(tmp_path).train(config)
    state = torch.load(tmp_path / "model.ckpt-2.pt", weights_only=True)["model"]
    bias = state["model.Default.atomic_model.out_bias"].numpy().reshape(-1)
    known = [gap for gap in gaps if not np.isnan(gap)]
    np.testing.assert_allclose(bias, np.mean(known), rtol=1e-6)
    # The training columns are NaN where a displayed batch has no label at all.
    curve = np.genfromtxt(tmp_path / "lcurve.out", names=True)
    assert np.isfinite(curve["rmse_gap_val"]).all()


def test_a_missing_label_ends_the_run_with_one_message(tmp_path):
    config, _ = training(tmp_path, "two sets", [0, 1, 2, 4, 5], mask=False)
    output = Dp(tmp_path).train(config, ok=False)
    assert "set.000/gap.npy does not exist" in output
    assert "Traceback" not in output
    assert not (tmp_path / "model.ckpt-2.pt").exists()
