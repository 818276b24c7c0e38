"""`torchrun` with two processes on a CPU, as far as DeePMD-kit's trainer goes there.

What is changed for that is in :mod:`tests.helpers.dp_on_cpu`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch

from tests.helpers.dp import ONE_THREAD, ROOT, Dp, mft_input, single_input
from tests.helpers.labels import NFRAMES, gaps, write_lmdb, write_npy

if TYPE_CHECKING:
    from pathlib import Path

STEPS = 12
OWN = {"rank-0.pt", "rank-1.pt"}  # written by the helper


def torchrun(folder: Path, config: dict[str, Any], *args: str, ok: bool = True) -> str:
    """Train in two processes; return what they printed."""
    (folder / "input.json").write_text(json.dumps(config))
    command = ["-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    script = str(ROOT / "tests" / "helpers" / "dp_on_cpu.py")
    dp = ["--pt", "train", "input.json", "--skip-neighbor-stat", *args]
    ended = subprocess.run(
        [sys.executable, *command, script, *dp],
        cwd=folder,
        env={**os.environ, **ONE_THREAD, "PYTHONPATH": str(ROOT)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=1800,  # ends what hangs
        check=False,
    )
    assert (ended.returncode == 0) == ok, ended.stdout
    return ended.stdout


def weights(folder: Path, rank: int) -> dict[str, torch.Tensor]:
    state = torch.load(folder / f"rank-{rank}.pt", weights_only=True)
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


def last_checkpoint(folder: Path) -> dict[str, torch.Tensor]:
    state = torch.load(folder / "model.ckpt.pt", weights_only=True)["model"]
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


def assert_same_weights(one: dict[str, Any], other: dict[str, Any], **tolerance: float) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], msg=name, **tolerance)


def whole_set_input(system: Path, nframes: int, reference: Path) -> dict[str, Any]:
    """Return a training whose steps see every frame, and whose rate is too high to go on for long.

    With rates of layers, a backbone that wakes after the head, a pattern of names, a regulariser.
    """
    config = single_input()
    config["model"]["finetune_head"] = "RANDOM"
    config["learning_rate"] = {
        "type": "mft",
        "start_lr": 3e-2,
        "stop_lr": 1e-2,
        "schedule": {"type": "cosine"},
        "layer_decay": 0.5,
        "lp_steps": 2,
        "frozen": ["model.Default.*.type_embedding.*"],
    }
    config["loss"] |= {
        "validation": {"freq": 1, "patience": 2},
        "regularizers": [{"type": "l2_sp", "weight": 0.1, "reference": str(reference)}],
    }
    config["training"] |= {"numb_steps": STEPS, "disp_freq": 1, "save_freq": 4}
    config["training"]["training_data"] = {"systems": str(system), "batch_size": nframes}
    return config


@pytest.fixture(scope="module")
def both(tmp_path_factory, pretrained):
    """The folders of one process with the whole set a step, and of two with half of it each."""
    root = tmp_path_factory.mktemp("both")
    system = write_npy(root / "system", gaps())
    for name in ("one", "two"):
        (root / name).mkdir()
    args = ("--finetune", str(pretrained))
    log = Dp(root / "one").train(whole_set_input(system, NFRAMES, pretrained), *args)
    (root / "one" / "log").write_text(log)
    log = torchrun(root / "two", whole_set_input(system, NFRAMES // 2, pretrained), *args)
    (root / "two" / "log").write_text(log)
    return root


def test_two_halves_of_a_batch_are_the_whole(both):
    """Gradients are averaged: weights, rates and regularisers are those of one process."""
    assert_same_weights(weights(both / "two", 0), weights(both / "two", 1), rtol=0, atol=0)
    ends = [last_checkpoint(both / name) for name in ("one", "two")]
    assert_same_weights(*ends, rtol=1e-6, atol=1e-9)


def test_two_processes_stop_where_one_does(both):
    one, two = (pd.read_csv(both / name / "validation.csv") for name in ("one", "two"))
    pd.testing.assert_frame_equal(one, two, rtol=1e-6)
    assert one["step"].max() < STEPS
    log = (both / "two" / "log").read_text()
    assert f"Training ended early at step {one['step'].max()}" in log
    names = {name: {path.name for path in (both / name).iterdir()} for name in ("one", "two")}
    assert names["two"] - names["one"] == OWN
    assert names["one"] <= names["two"]


def test_two_processes_draw_branches_of_their_own(tmp_path, pretrained):
    """A branch that one process has not drawn has no gradient there; regularisers look on."""
    config = mft_input()
    config["training"] |= {"numb_steps": 8, "disp_freq": 1, "save_freq": 8}
    aim = config["training"]["data_dict"]["property"]["training_data"]
    aim["systems"] = str(write_lmdb(tmp_path / "train.lmdb", gaps()))
    reference = f"{pretrained}:GFN2"
    config["loss_dict"]["property"]["regularizers"] = [
        {"type": "feature_drift", "weight": 0.1, "reference": reference},
        {"type": "spectral_shrinkage", "weight": 1e-3},
    ]
    run = tmp_path / "run"
    run.mkdir()
    log = torchrun(run, config, "--finetune", str(pretrained))
    assert "Traceback" not in log
    ends = [weights(run, rank) for rank in (0, 1)]
    assert_same_weights(*ends, rtol=0, atol=0)
    began = torch.load(pretrained, weights_only=True)["model"]
    for part in ("descriptor.repflows.layers.0.", "fitting_net."):
        names = [name for name in began if f"model.GFN2.atomic_model.{part}" in name]
        assert any(not torch.equal(ends[0][name], began[name]) for name in names), part
    shown = pd.read_csv(run / "lcurve.out", sep=r"\s+", skiprows=2, header=None)
    assert shown[0].tolist() == list(range(1, 9))
    assert np.isfinite(shown.to_numpy()).all()


def test_a_mistake_is_told_once(tmp_path):
    config = single_input()
    config["loss"]["property_name"] = "gapp"
    log = torchrun(tmp_path, config, ok=False)
    assert len(re.findall("^deepmd_mft: .*gapp", log, re.MULTILINE)) == 1, log
