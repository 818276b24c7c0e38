"""`dp-mft select`: the whole validation set decides, and half-written files are passed over."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from deepmd_mft.checkpoints.averaging import average, greedy
from deepmd_mft.cli import main


@pytest.fixture
def run(mft_run, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    for path in mft_run.glob("*"):
        if path.name in ("input.json", "model.ckpt-3.pt", "model.ckpt-6.pt", "lcurve.out"):
            shutil.copy(path, folder)
    return folder


def test_best_is_linked_and_resumed(run, capsys):
    assert main(["select", str(run), "--average", "last:2"]) == 0
    table = pd.read_csv(run / "selection.csv")
    assert list(table["step"]) == [3, 6]
    best = (run / "model.best.pt").resolve()
    record = json.loads((run / "selection.json").read_text())
    assert record["best"] == best.name
    if best.name != "model.average.pt":
        assert best.name == table["file"][table["rmse"].idxmin()]
    assert "<- best" in capsys.readouterr().out or best.name == "model.average.pt"
    # a finished row is not evaluated again: its numbers are taken from the table
    table.loc[0, "rmse"] = 1e-9
    table.to_csv(run / "selection.csv", index=False)
    assert main(["select", str(run), "-q"]) == 0
    assert (run / "model.best.pt").resolve().name == "model.ckpt-3.pt"


def test_half_written_checkpoint(run, capsys):
    data = (run / "model.ckpt-6.pt").read_bytes()
    (run / "model.ckpt-9.pt").write_bytes(data[: len(data) // 2])
    assert main(["select", str(run)]) == 0
    assert "model.ckpt-9.pt left out" in capsys.readouterr().err
    assert "model.ckpt-9.pt" not in (run / "selection.csv").read_text()


def test_diverged_checkpoint_is_not_chosen(run):
    state = torch.load(run / "model.ckpt-3.pt", weights_only=True)
    state["model"]["model.property.atomic_model.out_bias"].fill_(float("nan"))
    torch.save(state, run / "model.ckpt-3.pt")
    assert main(["select", str(run), "-q"]) == 0
    assert (run / "model.best.pt").resolve().name == "model.ckpt-6.pt"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda run: [p.unlink() for p in run.glob("*.pt")],
            "has no checkpoint model.ckpt-STEP.pt",
        ),
        (lambda run: (run / "input.json").unlink(), "has no input.json"),
        (lambda run: (run / "model.best.pt").write_text("mine"), "is a file of its own"),
    ],
)
def test_nothing_to_select(run, edit, message, capsys):
    edit(run)
    assert main(["select", str(run), "-q"]) == 1
    assert message in capsys.readouterr().err


def test_without_validation_data(run, capsys):
    config = json.loads((run / "input.json").read_text())
    del config["training"]["data_dict"]["property"]["validation_data"]
    (run / "input.json").write_text(json.dumps(config))
    assert main(["select", str(run), "-q"]) == 1
    assert "has no validation_data" in capsys.readouterr().err


def test_average_is_the_mean_of_the_weights(run):
    paths = [run / "model.ckpt-3.pt", run / "model.ckpt-6.pt"]
    states = [torch.load(path, weights_only=True)["model"] for path in paths]
    mean = average(paths)
    key = "model.property.atomic_model.out_std"
    assert torch.allclose(mean[key], (states[0][key] + states[1][key]) / 2)
    assert mean["_extra_state"]["model_params"] == states[1]["_extra_state"]["model_params"]
    key = next(k for k in mean if k.endswith("node_self_mlp.matrix"))
    np.testing.assert_allclose(mean[key], (states[0][key] + states[1][key]) / 2, rtol=1e-12)


def test_greedy_adds_only_what_helps(tmp_path):
    paths = [tmp_path / name for name in "abc"]
    scores = {"ab": 1.2, "ac": 0.8}
    chosen, best = greedy(paths, lambda some: scores["".join(p.name for p in some)], 1.0)
    assert [p.name for p in chosen] == ["a", "c"]
    assert best == 0.8
