"""The commands of `dp --pt`, run as a user runs them, on the embedded QM9 molecules."""

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from tests.helpers.dp import DATA, ONE_THREAD, PROPERTY_NET, Dp, mft_input, single_input

#: Molecules that the models are tested on.
FEW = 40


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The first molecules of the validation set, as a system."""
    system = tmp_path_factory.mktemp("few") / "valid"
    (system / "set.000").mkdir(parents=True)
    for path in (DATA / "valid").iterdir():
        if path.is_file():
            (system / path.name).write_bytes(path.read_bytes())
    for path in (DATA / "valid" / "set.000").glob("*.npy"):
        np.save(system / "set.000" / path.name, np.load(path)[:FEW])
    return str(system)


def predictions(folder: Path, prefix: str) -> np.ndarray:
    """Label and prediction of every frame: `dp test -d` writes one file a frame."""
    files = sorted(folder.glob(f"{prefix}.property.out.*"), key=lambda p: int(p.suffix[1:]))
    return np.array([np.loadtxt(path) for path in files])


def weights(path: Path) -> dict[str, torch.Tensor]:
    state = torch.load(path, weights_only=True)["model"]
    return {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}


def test_mft_trains_both_branches_on_one_descriptor(mft_run, pretrained):
    header, *_, last = (mft_run / "lcurve.out").read_text().splitlines()
    assert "mae_trn_property" in header
    assert "rmse_f_trn_GFN2" in header
    assert np.isfinite(np.array(last.split(), dtype=float)).all()
    before, after = weights(pretrained), weights(mft_run / "model.ckpt-6.pt")
    shared = "descriptor.repflows.layers.0.node_self_mlp.matrix"
    left, right = (
        after[f"model.{branch}.atomic_model.{shared}"] for branch in ("GFN2", "property")
    )
    assert torch.equal(left, right)
    assert not torch.equal(left, before[f"model.GFN2.atomic_model.{shared}"])


def test_bias_comes_from_the_training_labels(mft_run):
    state = weights(mft_run / "model.ckpt-6.pt")
    (folder,) = (DATA / "train").glob("set.*")
    types, labels = np.load(folder / "real_atom_types.npy"), np.load(folder / "gap.npy")[:, 0]
    bias = state["model.property.atomic_model.out_bias"].numpy().ravel()
    composition = np.array([bias[row[row >= 0]].mean() for row in types])
    assert np.sqrt(np.mean((composition - labels) ** 2)) < 0.9 * labels.std()
    assert 0 < float(state["model.property.atomic_model.out_std"][0, 0, 0]) < labels.std()


def test_checkpoint_and_frozen_model_give_the_same_numbers(mft_run, few):
    run = Dp(mft_run)
    log = run("test", "-m", "property.pth", "-s", few, "-n", "0", "-d", "frozen")
    run("test", "-m", "model.ckpt-6.pt", "--head", "property", "-s", few, "-n", "0", "-d", "pt")
    frozen, checkpoint = predictions(mft_run, "frozen"), predictions(mft_run, "pt")
    assert len(frozen) == FEW
    np.testing.assert_allclose(frozen, checkpoint, rtol=1e-9)
    rmse = float(re.search(r"PROPERTY RMSE\s*: (\S+)", log).group(1))
    assert rmse == pytest.approx(np.sqrt(np.mean((frozen[:, 0] - frozen[:, 1]) ** 2)), rel=1e-5)


def test_frozen_model_runs_without_the_plugin(mft_run, tmp_path, few):
    """In a Python that sees every installed package except this one."""
    installed = Path(sysconfig.get_paths()["purelib"])
    site = tmp_path / "lib" / "python" / installed.name
    site.mkdir(parents=True)
    for entry in installed.iterdir():
        if "deepmd_mft" not in entry.name:
            (site / entry.name).symlink_to(entry)
    for library in installed.parents[1].iterdir():  # MPI, found relative to site-packages
        if not library.name.startswith("python"):
            (site.parents[1] / library.name).symlink_to(library)
    code = (
        "import sys; sys.path.insert(0, sys.argv.pop(1))\n"
        "import importlib.util; assert importlib.util.find_spec('deepmd_mft') is None\n"
        "from deepmd.main import main; main()"
    )
    arguments = ["--pt", "test", "-m", str(mft_run / "property.pth"), "-s", few, "-n", "0"]
    subprocess.run(
        [sys.executable, "-S", "-c", code, str(site), *arguments, "-d", "plain"],
        check=True,
        cwd=tmp_path,
        env={**os.environ, **ONE_THREAD, "PYTHONPATH": ""},
    )
    run = Dp(mft_run)
    run("test", "-m", "property.pth", "-s", few, "-n", "0", "-d", "plugin")
    np.testing.assert_array_equal(predictions(tmp_path, "plain"), predictions(mft_run, "plugin"))


def test_restart_goes_on_where_the_run_stopped(dp, pretrained):
    config = mft_input()
    dp.train(config, "--finetune", str(pretrained))
    straight = weights(dp.folder / "model.ckpt-6.pt")
    log = dp.train(config, "--restart", "model.ckpt-3.pt")
    assert "model.ckpt-6.pt" in log
    resumed = weights(dp.folder / "model.ckpt-6.pt")
    assert straight.keys() == resumed.keys()
    bias = "model.property.atomic_model.out_bias"
    assert torch.equal(straight[bias], resumed[bias])


def test_init_model_keeps_the_statistics(dp, mft_run):
    dp.train(mft_input(), "--init-model", str(mft_run / "model.ckpt-6.pt"))
    bias = "model.property.atomic_model.out_bias"
    assert torch.equal(
        weights(mft_run / "model.ckpt-6.pt")[bias], weights(dp.folder / "model.ckpt-6.pt")[bias]
    )


def test_finetune_a_property_head_shifts_its_bias(dp, mft_run):
    config = mft_input()
    config["model"]["model_dict"]["property"]["finetune_head"] = "property"
    log = dp.train(config, "--finetune", str(mft_run / "model.ckpt-6.pt"))
    assert "property gap: bias shifted by at most" in log


def test_finetune_head_left_out_resumes_the_branch(dp, mft_run):
    config = mft_input()
    for branch in config["model"]["model_dict"].values():
        branch.pop("finetune_head")
    log = dp.train(config, "--finetune", str(mft_run / "model.ckpt-6.pt"))
    assert "Model branch property will resume training" in log


def test_single_task_from_scratch_fine_tuned_and_probed(dp, pretrained, few):
    config = single_input()
    dp.train(config)
    config["model"]["finetune_head"] = "RANDOM"
    dp.train(config, "--finetune", str(pretrained))
    config["model"]["descriptor"]["trainable"] = False
    dp.train(config, "--finetune", str(pretrained))
    probed, start = weights(dp.folder / "model.ckpt-6.pt"), weights(pretrained)
    part = "atomic_model.descriptor.repflows.layers.0.node_self_mlp.matrix"
    assert torch.equal(probed[f"model.Default.{part}"], start[f"model.GFN2.{part}"])
    dp("freeze", "-o", "single")
    dp("test", "-m", "single.pth", "-s", few, "-n", "0", "-d", "single")
    assert np.isfinite(predictions(dp.folder, "single")).all()


@pytest.mark.parametrize("readout", ["sum", "max"])
def test_other_readouts_train_freeze_and_test(dp, readout, few):
    config = single_input()
    config["model"]["fitting_net"] |= {"readout": readout, "intensive": readout != "sum"}
    dp.train(config)
    dp("freeze", "-o", "model")
    dp("test", "-m", "model.pth", "-s", few, "-n", "0", "-d", "out")
    assert np.isfinite(predictions(dp.folder, "out")).all()


def test_neighbor_statistics_and_the_native_property_loss(dp):
    """The bias sees the whole training set."""
    import json

    config = single_input()
    config["loss"] = {"type": "property", "loss_func": "mse", "metric": ["mae"]}
    (dp.folder / "input.json").write_text(json.dumps(config))
    log = dp("train", "input.json")
    nframes = sum(len(np.load(path)) for path in (DATA / "train").rglob("gap.npy"))
    assert f"from {nframes} labelled frames of {nframes}" in log


def test_show(mft_run):
    log = Dp(mft_run)("show", "model.ckpt-6.pt", "model-branch", "fitting-net")
    assert PROPERTY_NET["type"] in log
    assert "GFN2" in log


def test_eval_desc(mft_run, few):
    run = Dp(mft_run)
    run("eval-desc", "-m", "model.ckpt-6.pt", "--head", "property", "-s", few, "-o", "desc")
    assert np.isfinite(np.load(mft_run / "desc" / "valid.npy")).all()


def test_embed(mft_run, few):
    run = Dp(mft_run)
    run("embed", "-m", "model.ckpt-6.pt", "--head", "property", "-s", few, "-o", "e.hdf5")
    shapes = {}
    with h5py.File(mft_run / "e.hdf5") as file:
        file.visititems(
            lambda name, item: (
                shapes.update({name.split("/")[-1]: item.shape})
                if isinstance(item, h5py.Dataset)
                else None
            )
        )
    assert shapes["structural_feature"][-1] == PROPERTY_NET["neuron"][-1]


def test_change_bias_shifts_a_property_head_to_new_labels(mft_run, few):
    """The mean error on the labels is gone, weighed by atoms as the fit weighs it."""
    run = Dp(mft_run)
    given = ["-s", few, "--model-branch", "property", "-o", "shifted.pt"]
    log = run("change-bias", "model.ckpt-6.pt", *given)
    assert "property gap: bias shifted by at most" in log
    run("test", "-m", "shifted.pt", "--head", "property", "-s", few, "-n", "0", "-d", "shift")
    label, predicted = predictions(mft_run, "shift").T
    natoms = (np.load(Path(few) / "set.000" / "real_atom_types.npy") >= 0).sum(axis=1)
    left = np.average(predicted - label, weights=natoms**2)
    assert abs(left) < 1e-3 * label.std()


def test_a_mistake_ends_the_command_before_anything_is_written(dp):
    config = mft_input()
    config["loss_dict"]["property"]["property_name"] = "homo"
    log = dp.train(config, ok=False)
    assert "deepmd_mft: branch 'property': property_name is 'gap'" in log
    assert "Traceback" not in log
    assert [path.name for path in dp.folder.iterdir()] == ["input.json"]
