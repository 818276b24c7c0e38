"""`dp --pt train` with and without the faster DPA-3: the same losses, the same weights."""

import numpy as np
import pytest
import torch

from tests.helpers.dp import Dp, mft_input

STEPS = 20


@pytest.mark.parametrize("activation", ["silut:3.0"])
def test_twenty_steps_with_equal_seeds(activation, tmp_path, monkeypatch):
    config = mft_input()
    config["model"]["shared_dict"]["dpa3_descriptor"]["activation_function"] = activation
    config["training"].update(numb_steps=STEPS, disp_freq=1, save_freq=STEPS)
    curves, states = [], []
    for switch, said in (("0", "not sped up: DP_MFT_FAST=0"), ("1", "DPA-3 is sped up")):
        monkeypatch.setenv("DP_MFT_FAST", switch)
        folder = tmp_path / switch
        folder.mkdir()
        assert said in Dp(folder).train(config)
        curves.append(np.loadtxt(folder / "lcurve.out"))
        states.append(torch.load(folder / "model.ckpt.pt", weights_only=True)["model"])
    assert len(curves[0]) == STEPS
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-5)
    assert states[0].keys() == states[1].keys()
    for name, expected in states[0].items():
        if name != "_extra_state":
            torch.testing.assert_close(states[1][name], expected, rtol=1e-8, atol=1e-10)
