"""`dp-mft check` and `dp-mft split` mean the same by "the same"."""

from __future__ import annotations

import json

import numpy as np
import pytest

from deepmd_mft.data.convert import convert
from deepmd_mft.inputs.findings import Findings
from deepmd_mft.inputs.leakage import find_leakage
from deepmd_mft.structures.structure_set import StructureSet
from tests.helpers.frames import molecule, source


def make(folder, name, smiles, groups=("",), files=()):
    """Write a set of molecules, no two of one structure; return it."""
    frames = []
    for i, one in enumerate(smiles):
        frame = molecule(5, name=f"{name}{i}-")
        frame.coords *= 1 + 0.02 * i + (0.3 if name == "train" else 0.0)
        frame.smiles, frame.group = one, groups[i % len(groups)]
        frames.append(frame)
    convert(source(*frames), folder / name, progress=False)
    record = json.loads((folder / name / "dataset.json").read_text())
    record["files"] = list(files)
    (folder / name / "dataset.json").write_text(json.dumps(record))
    return StructureSet(name, [folder / name])


def leaks(train, held_out, tests=()):
    findings = Findings(stop=False)
    sets = {("property", "training_data"): train, ("property", "validation_data"): held_out}
    find_leakage(sets, list(tests), findings)
    return findings


def test_another_spelling_is_found(tmp_path):
    pytest.importorskip("rdkit")
    train = make(tmp_path, "train", ["CCO", "CCN"])
    valid = make(tmp_path, "valid", ["CF", "OCC", "NC([2H])C"])
    (warning,) = leaks(train, valid).warnings
    assert "2 of 3 structures of valid are in train too" in warning
    assert "first: valid1-5:0" in warning
    test = make(tmp_path, "test", ["CF", "OCC", "C(N)C"])
    (error,) = leaks(train, valid, [test]).errors
    assert error.startswith("leakage: 2 of 3")


def test_equal_groups_count_within_one_source_only(tmp_path):
    one, other = {"path": "/a", "sha256": "1"}, {"path": "/b", "sha256": "2"}
    train = make(tmp_path, "train", ["CC", "CO"], ["1", "2"], [one])
    same = make(tmp_path, "same", ["CF", "CN"], ["2", "3"], [one])
    apart = make(tmp_path, "apart", ["CF", "CN"], ["2", "3"], [other])
    assert "1 of 2 structures of same" in leaks(train, same).warnings[0]
    assert not leaks(train, apart).warnings


def test_equal_structures_under_other_names(tmp_path):
    train = make(tmp_path, "train", ["CC", "CO", "CF"])
    copy = molecule(5, name="copy")
    copy.coords = train.structures[1].positions[None] @ np.diag([1.0, -1.0, -1.0]) + 2.0
    copy.smiles = "CCCCCC"
    convert(source(copy), tmp_path / "copy", progress=False)
    valid = StructureSet("copy", [tmp_path / "copy"])
    assert "1 of 1 structures of copy" in leaks(train, valid).warnings[0]
