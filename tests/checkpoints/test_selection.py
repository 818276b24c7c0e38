"""`dp-mft select`: the whole validation set decides, and half-written files are passed over."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from deepmd_mft.checkpoints.averaging import average, greedy
from deepmd_mft.cli import main
from tests.helpers.dp import DATA, Dp, single_input

BIAS = "model.property.atomic_model.out_bias"


def move(run, step, shift):
    """Add to the predictions of a checkpoint, by its bias."""
    path = run / f"model.ckpt-{step}.pt"
    state = torch.load(path, weights_only=True)
    state["model"][BIAS] += shift
    torch.save(state, path)


@pytest.fixture
def run(mft_run, tmp_path):
    """A run whose two checkpoints are one, moved by +3 and -1 Hartree."""
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("input.json", "out.json", "lcurve.out", "model.ckpt-6.pt"):
        shutil.copy(mft_run / name, folder)
    shutil.copy(mft_run / "model.ckpt-6.pt", folder / "model.ckpt-3.pt")
    move(folder, 3, 3.0)
    move(folder, 6, -1.0)
    return folder


def best(run):
    return (run / "model.best.pt").resolve()


def test_best_is_linked_and_resumed(run, capsys):
    assert main(["select", str(run)]) == 0
    table = pd.read_csv(run / "selection.csv")
    assert list(table["step"]) == [3, 6]
    assert table["rmse"].to_numpy() == pytest.approx([3.0, 1.0], abs=0.1)
    assert best(run) == run / "model.ckpt-6.pt"
    assert json.loads((run / "selection.json").read_text())["best"] == "model.ckpt-6.pt"
    shown = [line for line in capsys.readouterr().out.splitlines() if "<- best" in line]
    assert len(shown) == 1
    assert shown[0].split()[0] == "6"
    # a finished row is not evaluated again: its numbers are taken from the table
    table.loc[0, "rmse"] = 1e-9
    table.to_csv(run / "selection.csv", index=False)
    assert main(["select", str(run), "-q"]) == 0
    assert best(run) == run / "model.ckpt-3.pt"


def test_an_average_that_is_better_is_kept(run):
    move(run, 3, -2.0)  # now +1 and -1
    assert main(["select", str(run), "--average", "best:2", "-q"]) == 0
    assert best(run) == run / "model.average.pt"
    kept = torch.load(best(run), weights_only=True)["model"]
    paths = [run / "model.ckpt-3.pt", run / "model.ckpt-6.pt"]
    states = [torch.load(path, weights_only=True)["model"] for path in paths]
    torch.testing.assert_close(kept[BIAS], (states[0][BIAS] + states[1][BIAS]) / 2)
    record = json.loads((run / "selection.json").read_text())
    assert [one["kept"] for one in record["averages"] if one["kind"] == "uniform"] == [True]
    assert min(one["rmse"] for one in record["averages"]) < 0.1


def test_an_average_that_is_worse_is_not_kept(run):
    move(run, 6, 1.0)  # now +3 and 0: the average is 1.5 off
    assert main(["select", str(run), "--average", "last:2", "-q"]) == 0
    assert best(run) == run / "model.ckpt-6.pt"
    assert not (run / "model.average.pt").exists()
    record = json.loads((run / "selection.json").read_text())
    assert [one["rmse"] for one in record["averages"]] == pytest.approx([1.5], abs=0.1)


def test_checkpoints_in_a_folder(run, capsys):
    (run / "ckpt").mkdir()
    for step in (3, 6):
        (run / f"model.ckpt-{step}.pt").rename(run / "ckpt" / f"model.ckpt-{step}.pt")
    config = json.loads((run / "out.json").read_text())
    config["training"]["save_ckpt"] = "ckpt/model.ckpt"
    (run / "out.json").write_text(json.dumps(config))
    arguments = ["select", str(run), "--average", "last:2"]
    assert main(arguments) == 0
    assert best(run) == run / "ckpt" / "model.ckpt-6.pt"
    assert list(pd.read_csv(run / "selection.csv")["file"]) == [
        "ckpt/model.ckpt-3.pt",
        "ckpt/model.ckpt-6.pt",
    ]
    assert "model.best.pt -> ckpt/model.ckpt-6.pt" in capsys.readouterr().out
    evaluate = ["evaluate", str(run), "--split", str(DATA / "valid"), "-o", str(run / "out")]
    assert main(evaluate) == 0


def test_a_moved_run_goes_on(run, tmp_path, capsys):
    shutil.copytree(DATA / "valid", run / "valid")
    shutil.copytree(DATA / "aux_valid", run / "aux")
    text = (run / "out.json").read_text()
    text = text.replace(f'"{DATA / "valid"}"', '"valid"').replace(str(DATA / "aux_valid"), "aux")
    (run / "out.json").write_text(text)
    assert main(["select", str(run), "-q"]) == 0
    table = pd.read_csv(run / "selection.csv")
    table.loc[0, "rmse"] = 1e-9  # shows that it is not evaluated again
    table.to_csv(run / "selection.csv", index=False)
    moved = tmp_path / "elsewhere"
    run.rename(moved)
    assert main(["select", str(moved), "-q"]) == 0
    assert best(moved) == moved / "model.ckpt-3.pt"
    label = next((moved / "valid").rglob("gap.npy"))
    np.save(label, np.load(label) + 0.001)
    assert main(["select", str(moved), "-q"]) == 1
    assert "other validation data" in capsys.readouterr().err


def test_an_input_in_yaml(run, tmp_path):
    config = json.loads((run / "input.json").read_text())
    for name in ("input.json", "out.json"):
        (run / name).unlink()
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(config))
    assert main(["select", str(run), "--input", str(tmp_path / "x.yaml"), "-q"]) == 0
    assert best(run) == run / "model.ckpt-6.pt"


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [1", "is not JSON or YAML"), ("- 1\n- 2\n", "has no model and no training section")],
)
def test_an_input_that_is_none(run, tmp_path, text, message, capsys):
    (tmp_path / "x.yaml").write_text(text)
    assert main(["select", str(run), "--input", str(tmp_path / "x.yaml"), "-q"]) == 1
    assert f"x.yaml {message}" in capsys.readouterr().err


@pytest.fixture(scope="module")
def two_properties(tmp_path_factory):
    """A run that learns gap and 100 gap + 1 with one head."""
    folder = tmp_path_factory.mktemp("two")
    for name in ("train", "valid"):
        shutil.copytree(DATA / name, folder / name)
        for path in (folder / name).rglob("gap.npy"):
            np.save(path.with_name("other.npy"), 100 * np.load(path) + 1)
    config = json.loads(json.dumps(single_input()).replace(f"{DATA}/", ""))
    config["model"]["fitting_net"]["property_name"] = ["gap", "other"]
    config["loss"]["property_name"] = ["gap", "other"]
    Dp(folder).train(config)
    return folder


def test_a_head_of_several_properties(two_properties, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(two_properties, run, symlinks=True)
    state = torch.load(run / "model.ckpt-6.pt", weights_only=True)
    bias = state["model"]["model.Default.atomic_model.out_bias"]
    bias[0] += 0.02  # gap gets worse, by much less than its spread
    bias[1] -= 1.0
    torch.save(state, run / "model.ckpt-6.pt")
    assert main(["select", str(run)]) == 0
    assert (
        "mean over gap, other, each in units of the standard deviation" in capsys.readouterr().out
    )
    table = pd.read_csv(run / "selection.csv")
    label = np.load(next((run / "valid").rglob("gap.npy"))).ravel()
    expected = (table["rmse_gap"] / label.std() + table["rmse_other"] / (100 * label.std())) / 2
    np.testing.assert_allclose(table["rmse"], expected, rtol=1e-6)
    assert best(run).name == table["file"][table["rmse"].idxmin()]
    assert main(["select", str(run), "--property", "other", "--overwrite", "-q"]) == 0
    one = pd.read_csv(run / "selection.csv")
    np.testing.assert_allclose(one["rmse"], table["rmse_other"])
    assert main(["select", str(run), "--property", "homo", "--overwrite", "-q"]) == 1
    assert "does not predict 'homo'; there are gap, other" in capsys.readouterr().err


def test_half_written_checkpoint(run, capsys):
    data = (run / "model.ckpt-6.pt").read_bytes()
    (run / "model.ckpt-9.pt").write_bytes(data[: len(data) // 2])
    assert main(["select", str(run)]) == 0
    assert "model.ckpt-9.pt left out" in capsys.readouterr().err
    assert "model.ckpt-9.pt" not in (run / "selection.csv").read_text()


def test_diverged_checkpoint_is_not_chosen(run):
    move(run, 6, float("nan"))
    assert main(["select", str(run), "-q"]) == 0
    assert best(run) == run / "model.ckpt-3.pt"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda run: [p.unlink() for p in run.glob("*.pt")],
            "has no checkpoint model.ckpt-STEP.pt",
        ),
        (
            lambda run: [(run / name).unlink() for name in ("out.json", "input.json")],
            "has no out.json (nor input.json)",
        ),
        (lambda run: (run / "model.best.pt").write_text("mine"), "is a file of its own"),
    ],
)
def test_nothing_to_select(run, edit, message, capsys):
    edit(run)
    assert main(["select", str(run), "-q"]) == 1
    assert message in capsys.readouterr().err


def test_without_validation_data(run, capsys):
    config = json.loads((run / "out.json").read_text())
    del config["training"]["data_dict"]["property"]["validation_data"]
    (run / "out.json").write_text(json.dumps(config))
    assert main(["select", str(run), "-q"]) == 1
    assert "has no validation_data" in capsys.readouterr().err


def test_average_is_the_mean_of_the_weights(mft_run):
    paths = [mft_run / "model.ckpt-3.pt", mft_run / "model.ckpt-6.pt"]
    states = [torch.load(path, weights_only=True)["model"] for path in paths]
    mean = average(paths)
    assert mean["_extra_state"]["model_params"] == states[1]["_extra_state"]["model_params"]
    key = next(k for k in mean if k.endswith("node_self_mlp.matrix"))
    assert not torch.equal(states[0][key], states[1][key])
    np.testing.assert_allclose(mean[key], (states[0][key] + states[1][key]) / 2, rtol=1e-12)


def test_greedy_adds_only_what_helps(tmp_path):
    paths = [tmp_path / name for name in "abc"]
    scores = {"ab": 1.2, "ac": 0.8}
    chosen, score = greedy(paths, lambda some: scores["".join(p.name for p in some)], 1.0)
    assert [p.name for p in chosen] == ["a", "c"]
    assert score == 0.8
