"""The quickstart from end to end, with a few steps."""

import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest

from deepmd_mft.inference.predictor import Predictor
from deepmd_mft.structures.structure_set import StructureSet
from tests.helpers.dp import DATA, ROOT

SCRIPT = ROOT / "examples" / "qm9_gap" / "quickstart.py"


def quickstart(runs):
    command = [sys.executable, str(SCRIPT), "--runs", str(runs), "--steps", "4"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quickstart")
    (folder / "first.log").write_text(quickstart(folder))
    return folder


def test_writes_table_and_picture(runs):
    record = json.loads((runs / "table.json").read_text())
    assert len(record["errors"]) == 4
    for sets in record["errors"].values():
        for name, errors in sets.items():
            label = StructureSet(name, [DATA / name]).labels("gap", 1)
            assert label is not None
            # four steps from a constant per element: an error of the size of the spread
            assert 0 < errors["MAE"] <= errors["RMSE"] < 1.5 * label.std()
    frozen = Predictor.load(next((runs / "mft").glob("*.pth")))
    structures = StructureSet("ood_test", [DATA / "ood_test"])
    found = frozen.predict(frozen.batches(structures))["gap"] - structures.labels("gap", 1)
    rmse = np.sqrt(np.mean(found**2))
    assert rmse in [
        pytest.approx(one["ood_test"]["RMSE"], rel=1e-5) for one in record["errors"].values()
    ]
    log = (runs / "first.log").read_text()
    assert (runs / "table.md").read_text() in log
    assert (runs / "learning_curves.png").read_bytes().startswith(b"\x89PNG")
    assert "dp --pt train input.json --finetune pretrained/model.pt" in log


def test_a_finished_run_is_not_repeated(runs, monkeypatch, capsys):
    """What comes after the trainings is the same as before, and spared here."""
    before = (runs / "mft" / "lcurve.out").read_text()
    spec = importlib.util.spec_from_file_location("quickstart", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(script, "dp", lambda *_: "PROPERTY MAE : 0.01\nPROPERTY RMSE : 0.02")
    monkeypatch.setattr(sys, "argv", ["quickstart.py", "--runs", str(runs), "--steps", "4"])
    assert script.main() == 0
    log = capsys.readouterr().out
    for name in ("ft", "mft", "mft_cheap"):
        assert f"{name}: finished before" in log
    assert (runs / "mft" / "lcurve.out").read_text() == before
