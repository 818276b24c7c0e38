"""A plan of two folds, trained by make, killed in the middle and finished, with the real `dp`."""

import json
import os
import shutil
import signal
import subprocess
import time

import pandas as pd
import pytest

from deepmd_mft.checkpoints.run import TrainingRun
from deepmd_mft.cli import main
from tests.helpers.dp import DATA, ONE_THREAD, ROOT, single_input

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")


def test_killed_and_finished(tmp_path, capsys):
    folds = tmp_path / "the folds"
    for fold, test in (("fold_00", "valid"), ("fold_01", "valid_tail")):
        for name, source in (("train", "train"), ("val", "valid"), ("id_test", test)):
            shutil.copytree(DATA / source, folds / fold / name)
    config = single_input()
    config["training"] |= {"save_freq": 5, "disp_freq": 5}
    (tmp_path / "input_scratch.json").write_text(json.dumps(config))
    out = tmp_path / "it's a plan"
    template = str(tmp_path / "input_scratch.json")
    assert main(["plan", str(folds), "--template", template, "--steps", "150", "-o", str(out)]) == 0
    run = out / "fold_00-scratch-s1"

    job = {"cwd": out, "env": {**os.environ, **ONE_THREAD, "PYTHONPATH": str(ROOT)}}
    make = subprocess.Popen(["make"], start_new_session=True, **job)
    while make.poll() is None and not (run / "model.ckpt-20.pt").exists():
        time.sleep(0.02)
    os.killpg(make.pid, signal.SIGKILL)
    make.wait()
    assert not (run / "trained").exists()
    kept = TrainingRun(run).checkpoints()
    kept[-1].path.write_bytes(kept[-1].path.read_bytes()[:5000])  # killed while it saved

    again = subprocess.run(["make"], check=False, capture_output=True, text=True, **job)
    assert again.returncode == 0, again.stderr
    said = f"fold_00-scratch-s1: training goes on from step {kept[-2].step}"
    assert said in again.stdout
    assert "Mean and standard deviation over folds" in again.stdout
    starts = json.loads((run / "dp_mft_start.json").read_text())
    assert [one["restart"] for one in starts] == [None, f"model.ckpt-{kept[-2].step}.pt"]
    assert TrainingRun(run).learning_curve()["step"].iloc[-1] == 150
    errors = pd.read_csv(out / "report_files" / "errors.csv")
    own = errors[errors["strategy"] == "scratch"]
    assert list(own["set"]) == ["fold_00/id_test", "fold_01/id_test"]
    folds_table = pd.read_csv(out / "report_files" / "folds.csv").set_index("strategy")
    assert folds_table.loc["scratch", "mae_mean"] == pytest.approx(own["mae"].mean())
    last = subprocess.run(["make"], check=True, capture_output=True, text=True, **job)
    assert "Nothing to be done" in last.stdout
