"""Losses in real runs of `dp --pt train`."""

import re

import numpy as np
import pytest
import torch

from tests.helpers.dp import single_input
from tests.helpers.labels import gaps, write_lmdb, write_npy


def curve(folder):
    """The columns of lcurve.out."""
    header, *lines = (folder / "lcurve.out").read_text().splitlines()
    rows = [line for line in lines if not line.startswith("#")]
    table = np.array([row.split() for row in rows], dtype=float)
    return dict(zip(header.lstrip("# ").split(), table.T, strict=True))


def short_input(training, validation=None):
    config = single_input()
    config["training"] |= {"numb_steps": 3, "disp_freq": 1, "save_freq": 3}
    config["training"]["training_data"] |= training
    config["training"]["validation_data"] |= validation or {}
    return config


def test_a_loss_without_property_name_takes_the_fitting_nets(dp):
    """As inputs of DeePMD-kit 3.1 have it."""
    config = short_input({})
    config["loss"] = {"type": "mft_property", "loss_func": "mse"}
    dp.train(config)
    assert np.isfinite(curve(dp.folder)["rmse_val"]).all()


@pytest.fixture(params=["npy", "lmdb"])
def unlabelled_batches(request, tmp_path):
    """Training data of which most batches have no label."""
    if request.param == "lmdb":
        labels = [*gaps()[:2], *[None] * (len(gaps()) - 2)]
        return {"systems": str(write_lmdb(tmp_path / "part.lmdb", labels)), "batch_size": 1}
    systems = [write_npy(tmp_path / "with", gaps()), write_npy(tmp_path / "without", None)]
    # every batch comes from the second system
    return {"systems": [str(path) for path in systems], "auto_prob": "prob_sys_size;0:1:0;1:2:1"}


def test_batches_without_any_label_do_not_end_a_run(dp, unlabelled_batches):
    config = short_input(unlabelled_batches)
    config["loss"] |= {"missing_labels": "mask", "metric": ["mae", "rmse", "r2"]}
    dp.train(config)
    shown = curve(dp.folder)
    assert np.isnan(shown["rmse_gap_trn"]).any()
    assert np.isnan(shown["mae_trn"]).any()
    assert np.isfinite(shown["rmse_gap_val"]).all()
    assert (dp.folder / "model.ckpt-3.pt").exists()


LMDB_LABELS = {
    "absent in one": (lambda gap: [None, *gap[1:]], "gap"),
    "NaN in most": (lambda gap: [*gap[:2], *np.full((len(gap) - 2, 1), np.nan)], "gap"),
    "two columns": (lambda gap: [*np.hstack([gap, gap])], "gap.* 2 .*expects"),
}


@pytest.mark.parametrize("kind", LMDB_LABELS)
def test_bad_labels_of_an_lmdb_end_a_run_with_a_message(dp, kind):
    make, message = LMDB_LABELS[kind]
    systems = str(write_lmdb(dp.folder / "bad.lmdb", make(gaps())))
    log = dp.train(short_input({"systems": systems, "batch_size": 64}), ok=False)
    assert "Traceback" not in log
    assert re.search(message, log.splitlines()[-1]), log


def test_statistics_come_from_every_label_and_nothing_else(dp):
    """Few batches are sampled, and one of the two sets of the system has no label file."""
    system = write_npy(dp.folder / "system", gaps())
    other = write_npy(dp.folder / "other", None)
    (other / "set.000").rename(system / "set.001")
    config = short_input({"systems": str(system), "batch_size": 4})
    config["model"] |= {"data_stat_nbatch": 1}
    config["model"]["fitting_net"]["bias"] = "mean"
    config["loss"]["missing_labels"] = "mask"
    log = dp.train(config)
    n = len(gaps())
    assert f"from {n} labelled frames of {2 * n}" in log
    state = torch.load(dp.folder / "model.ckpt-3.pt", weights_only=True)["model"]
    bias, scale = (state[f"model.Default.atomic_model.out_{name}"] for name in ("bias", "std"))
    np.testing.assert_allclose(bias.numpy().ravel(), gaps().mean())
    np.testing.assert_allclose(scale.numpy()[0, 0, 0], gaps().std())
