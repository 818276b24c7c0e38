"""Folds of the embedded data, and plans of them as a user makes them."""

from __future__ import annotations

import json
import shutil

import pytest

from deepmd_mft.cli import main
from tests.helpers.dp import DATA, single_input

NAMES = ("fold_00", "fold_01")


@pytest.fixture
def make_folds():
    """Write folds whose sets are those of the example."""

    def run(folder, names=NAMES):
        for number, fold in enumerate(names):
            tests = ("valid", "valid_tail")
            sets = {"train": "train", "val": tests[1 - number % 2], "id_test": tests[number % 2]}
            for name, source in sets.items():
                shutil.copytree(DATA / source, folder / fold / name)
            (folder / fold / "ood_test").mkdir()  # an empty part, as a split leaves it
        return folder

    return run


@pytest.fixture
def folds(tmp_path, make_folds):
    return make_folds(tmp_path / "folds")


@pytest.fixture
def template(tmp_path):
    path = tmp_path / "input_scratch.json"
    path.write_text(json.dumps(single_input()))
    return path


@pytest.fixture
def plan(tmp_path, capsys):
    """Make a plan; return its folder and what was told, or the message."""

    def run(*arguments, out=None, ok=True):
        out = out or tmp_path / "plan"
        assert main(["plan", *map(str, arguments), "-o", str(out)]) == (0 if ok else 1)
        told = capsys.readouterr().err
        return (out, told) if ok else told

    return run
