"""Odd structures in npy systems and LMDBs that a user wrote, through split, check and evaluate.

`dp-mft convert` had no chance to mend or skip them, so each verb must do right, or say what is
wrong.
"""

from __future__ import annotations

import copy
import csv
import json
from dataclasses import dataclass

import numpy as np
import pytest

from deepmd_mft.cli import main
from tests.helpers.dp import single_input
from tests.helpers.sets import Frame, assert_same, molecules, read_set, write_set

CUBE = 6.5 * np.eye(3)
SKEWED = np.array([[6.0, 0.0, 0.0], [1.3, 6.1, 0.0], [-0.6, 0.9, 6.4]])


@dataclass
class Case:
    """One structure beside sound ones.

    Parameters
    ----------
    frame : Frame
        The structure.
    same : Frame, optional
        One that has the same prediction by the laws of physics.
    checked : str
        What `check` must say in an error or warning; empty if nothing is wrong.
    refused : str
        What `split` and `evaluate` say when they refuse it; empty if they take it.
    """

    frame: Frame
    same: Frame | None = None
    checked: str = ""
    refused: str = ""


def crystal(cell, coords=((0.1, 0.2, 0.3), (2.0, 1.9, 2.1), (3.5, 0.4, 1.2)), gap=0.2):
    return Frame([6, 8, 1][: len(coords)], np.array(coords, float), gap, np.array(cell))


def replaced(frame, **changes):
    found = copy.deepcopy(frame)
    for name, value in changes.items():
        setattr(found, name, value)
    return found


def large():
    grid = np.stack(np.meshgrid(*[np.arange(8)] * 3, indexing="ij"), -1).reshape(-1, 3)[:500]
    return Frame([6, 1, 7, 8, 9] * 100, 2.1 * grid + 0.01, 0.95)  # 32 neighbours, of 40


SOUND = crystal(SKEWED)
MOLECULE = replaced(molecules(4)[3], gap=0.95)
CASES = {
    "left-handed cell": Case(replaced(SOUND, box=-SKEWED), SOUND, checked="left-handed"),
    "cell vectors in another order": Case(
        replaced(SOUND, box=SKEWED[[1, 0, 2]]), SOUND, checked="left-handed"
    ),
    "atom outside of its cell": Case(
        replaced(SOUND, coords=SOUND.coords + np.array([0 * SKEWED[0], 2 * SKEWED[0], -SKEWED[1]])),
        SOUND,
    ),
    "one atom": Case(Frame([9], np.array([[0.1, 0.2, 0.3]]), 0.95)),
    "one atom in a cell": Case(crystal(CUBE, ((0.1, 0.2, 0.3),))),
    "500 atoms": Case(large()),
    "a turned molecule": Case(
        replaced(MOLECULE, coords=MOLECULE.coords[:, [1, 2, 0]] + 4.0), MOLECULE
    ),
    "no volume": Case(crystal(np.diag([6.5, 6.5, 0.0])), checked="volume", refused="volume"),
    "coordinate that is none": Case(
        replaced(MOLECULE, coords=np.where(np.eye(6, 3) > 0, np.nan, MOLECULE.coords)),
        checked="NaN or inf",
        refused="NaN or inf",
    ),
    "two atoms in one place": Case(
        replaced(MOLECULE, coords=MOLECULE.coords[[0, 0, 2, 3, 4, 5]]), checked="closer"
    ),
}


def write(folder, name, layout):
    """Write the case beside eight sound structures of its kind."""
    frame = CASES[name].frame
    if frame.box is None:
        others = molecules(8)
    else:
        others = [crystal(CUBE * (1 + 0.02 * i), gap=0.3 + 0.01 * i) for i in range(8)]
    return write_set(folder, layout, [*others, frame]), [*others, frame]


@pytest.mark.parametrize("layout", ["plain", "mixed", "lmdb"])
@pytest.mark.parametrize("name", CASES)
def test_split(tmp_path, capsys, name, layout):
    data, frames = write(tmp_path / "set", name, layout)
    out = tmp_path / "out"
    status = main(["split", "random", str(data), str(out), "--id-test", "3", "--val", "2"])
    if CASES[name].refused:
        assert status == 1
        assert CASES[name].refused in capsys.readouterr().err
        return
    assert status == 0
    found = [frame for part in ("train", "val", "id_test") for frame in read_set(out / part)]
    assert_same(found, frames)


@pytest.mark.parametrize("layout", ["plain", "lmdb"])
@pytest.mark.parametrize("name", CASES)
def test_check(tmp_path, capsys, name, layout):
    data, _ = write(tmp_path / "set", name, layout)
    config = copy.deepcopy(single_input())
    config["training"]["training_data"] = {"systems": str(data), "batch_size": "auto:16"}
    del config["training"]["validation_data"]
    path = tmp_path / "input.json"
    path.write_text(json.dumps(config))
    status = main(["check", str(path), "--json"])
    found = json.loads(capsys.readouterr().out)
    said = " ".join(found["errors"] + found["warnings"])
    assert status == (1 if found["errors"] else 0)
    if CASES[name].checked:
        assert CASES[name].checked in said
    else:
        assert not found["errors"]


@pytest.mark.parametrize("layout", ["plain", "lmdb"])
@pytest.mark.parametrize("name", CASES)
def test_evaluate(tmp_path, capsys, mft_run, name, layout):
    case = CASES[name]
    data, frames = write(tmp_path / "set", name, layout)
    words = ["evaluate", str(mft_run / "property.pth"), "--split", str(data), "-q", "-o"]
    status = main([*words, str(tmp_path / "out")])
    if case.refused:
        assert status == 1
        assert case.refused in capsys.readouterr().err
        return
    if case.checked == "closer":
        assert status == 1
        assert "atoms on top of each other" in capsys.readouterr().err
        return
    assert status == 0
    found = predictions(tmp_path / "out")
    assert len(found) == len(frames)
    assert np.isfinite(list(found.values())).all()
    if case.same is not None:
        words[3] = str(write_set(tmp_path / "same", "plain", [case.same]))
        assert main([*words, str(tmp_path / "other")]) == 0
        expected = predictions(tmp_path / "other")
        assert found[case.frame.gap] == pytest.approx(expected[case.same.gap], abs=1e-9)


def predictions(folder):
    """Prediction by label."""
    with (folder / "predictions.csv").open(newline="") as handle:
        return {
            round(float(row["label"]), 6): float(row["prediction"])
            for row in csv.DictReader(handle)
        }
