"""What a user's labelled data may look like on disk, through split, check, gate and evaluate.

Every layout that deepmd-kit reads, with labels complete or missing, must give the same numbers as
the arrays that it was written from.
"""

from __future__ import annotations

import argparse
import copy
import csv
import json

import numpy as np
import pytest

from deepmd_mft.cli import main
from deepmd_mft.errors import UserError
from deepmd_mft.inputs.gate import check_command
from tests.helpers.dp import single_input
from tests.helpers.sets import LAYOUTS, assert_same, by_count, molecules, read_set, write_set

#: Which labels are missing. "set": all of the first set of a system; "system": all of a formula.
MISSING = ("none", "entry", "set", "system", "all")


def frames_with(missing, layout="mixed"):
    """The molecules, with NaN where the label is missing."""
    frames = molecules()
    parts = by_count(frames)
    chosen = {
        "none": [],
        "entry": [frames[1], frames[6]],
        "set": parts["4"][: (len(parts["4"]) + 1) // 2],
        "system": [frame for frame in frames if frame.numbers == frames[2].numbers]
        if layout not in ("mixed", "two sets", "linked")
        else parts["6"],
        "all": frames,
    }[missing]
    for frame in chosen:
        frame.gap = np.nan
    return frames


def sets():
    """Combinations of a layout and of what is missing."""
    for layout in LAYOUTS:
        for missing in MISSING:
            if missing == "set" and layout != "two sets":
                continue
            yield layout, missing


@pytest.mark.parametrize(("layout", "missing"), sets())
def test_split_keeps_every_number(tmp_path, layout, missing):
    """All frames are in one part each, with their own labels, NaN where there was none."""
    frames = frames_with(missing, layout)
    data = write_set(tmp_path / "set", layout, frames)
    out = tmp_path / "out"
    assert main(["split", "random", str(data), str(out), "--id-test", "4", "--val", "2"]) == 0
    parts = {part: read_set(out / part) for part in ("train", "val", "id_test")}
    assert [len(part) for part in parts.values()] == [6, 2, 4]
    assert_same([frame for part in parts.values() for frame in part], frames, atol=2e-7)


@pytest.mark.parametrize(("layout", "missing"), [one for one in sets() if one[1] != "none"])
def test_a_target_that_is_missing_is_refused(tmp_path, capsys, layout, missing):
    frames = frames_with(missing, layout)
    data = write_set(tmp_path / "set", layout, frames)
    words = ["boom", str(data), str(tmp_path / "out"), "--target", "gap", "--ood", "2"]
    assert main(["split", *words]) == 1
    message = capsys.readouterr().err
    count = sum(np.isnan(frame.gap) for frame in frames)
    assert "gap" in message
    assert str(data) in message
    if missing != "all":
        assert f"{count} of 12 rows" in message or f"{count} rows" in message
    assert not (tmp_path / "out").exists()


def training_input(tmp_path, layout, missing, *, mask):
    """An input whose training data have the layout, and a sound validation set."""
    data = write_set(tmp_path / "set", layout, frames_with(missing, layout))
    valid = write_set(tmp_path / "valid", "mixed", [_moved(frame) for frame in molecules()])
    config = copy.deepcopy(single_input())
    config["loss"]["missing_labels"] = "mask" if mask else "error"
    for section, folder in (("training_data", data), ("validation_data", valid)):
        config["training"][section] = {"systems": str(folder), "batch_size": "auto:16"}
    path = tmp_path / "input.json"
    path.write_text(json.dumps(config))
    return path


def _moved(frame):
    """Another structure of the same molecule, so that nothing leaks."""
    frame.coords = frame.coords * 1.05
    return frame


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize(("layout", "missing"), sets())
def test_check_counts_what_is_missing(tmp_path, capsys, layout, missing, mask):
    path = training_input(tmp_path, layout, missing, mask=mask)
    status = main(["check", str(path), "--json"])
    found = json.loads(capsys.readouterr().out)
    labels = [text for text in found["errors"] if "gap" in text]
    if missing == "none" or (mask and missing != "all"):
        assert not found["errors"]
        assert status == 0
        assert found["facts"]["model"]["frames"] == 12
        assert found["facts"]["model"]["elements"] == ["C", "F", "H", "N", "O"]
    else:
        assert labels
        assert status == 1


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize(("layout", "missing"), sets())
def test_the_gate_of_a_training(tmp_path, monkeypatch, layout, missing, mask):
    path = training_input(tmp_path, layout, missing, mask=mask)
    command = argparse.Namespace(
        command="train",
        INPUT=str(path),
        finetune=None,
        init_model=None,
        restart=None,
        skip_neighbor_stat=True,
    )
    monkeypatch.chdir(tmp_path)  # where a start is recorded
    if missing == "none" or (mask and missing != "all"):
        check_command(command)
        return
    with pytest.raises(UserError, match="gap"):
        check_command(command)


@pytest.fixture(scope="module")
def predicted(mft_run, tmp_path_factory):
    """Predictions of the molecules in the plainest layout, by gap."""
    folder = tmp_path_factory.mktemp("predicted")
    data = write_set(folder / "set", "mixed", molecules())
    return evaluated(mft_run, data, folder / "out")


def evaluated(mft_run, data, out):
    """Evaluate the tiny model on a set; return its rows by first coordinate."""
    words = [str(mft_run / "property.pth"), "--split", str(data), "-o", str(out), "-q"]
    assert main(["evaluate", *words]) == 0
    with (out / "predictions.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    return sorted((float(row["prediction"]), row["label"]) for row in rows)


@pytest.mark.parametrize(("layout", "missing"), sets())
def test_evaluate_predicts_the_same(tmp_path, mft_run, predicted, layout, missing):
    frames = frames_with(missing, layout)
    data = write_set(tmp_path / "set", layout, frames)
    found = evaluated(mft_run, data, tmp_path / "out")
    np.testing.assert_allclose([p for p, _ in found], [p for p, _ in predicted], rtol=0, atol=1e-6)
    by_hand = {round(frame.gap, 5) for frame in frames if not np.isnan(frame.gap)}
    for (_, label), (_, complete) in zip(found, predicted, strict=True):
        expected = round(float(complete), 5) if round(float(complete), 5) in by_hand else None
        assert (round(float(label), 5) if label else None) == expected
