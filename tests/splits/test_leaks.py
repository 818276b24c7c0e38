"""No method puts equal rows on two sides; published folds say how many are."""

from __future__ import annotations

import json

import numpy as np
import pytest

from deepmd_mft.cli import main
from deepmd_mft.data.convert import convert
from deepmd_mft.splits.fold import Fold, leaks
from deepmd_mft.splits.registry import METHODS
from tests.helpers.frames import crystal, molecule, source

#: Spellings of eight molecules. Every row has a geometry of its own.
SPELLINGS = [
    ("CCO", "OCC", "C(O)C", "[2H]CCO"),
    ("c1ccccc1C", "CC1=CC=CC=C1", "Cc1cc[13cH]cc1"),
    ("NC", "CN"),
    ("C1CCCCC1O", "OC1CCCCC1"),
    ("CF", "FC"),
    ("CCCl", "ClCC"),
    ("c1ccoc1", "o1cccc1"),
    ("CC(=O)C", "CC(C)=O"),
]
RUNS = {
    "boom": ["--target", "gap", "--ood", "2", "--id-test", "0.3", "--val", "0.3"],
    "sparse-y-single": ["--target", "gap", "--clusters", "3", "--candidates", "10"],
    "random": ["--id-test", "0.3", "--val", "0.3"],
    "kfold": ["--folds", "4", "--val", "0.3"],
    "scaffold": ["--ood", "0.1", "--id-test", "0.2", "--val", "0.2"],
    "element-out": ["--elements", "N", "--id-test", "0.2", "--val", "0.2"],
    "size-out": ["--larger-than", "12", "--id-test", "0.2", "--val", "0.2"],
}


def molecules():
    """One frame for each spelling; names, groups and structures are all different."""
    frames = []
    for kind, spellings in enumerate(SPELLINGS):
        for smiles in spellings:
            number = len(frames)
            one = molecule(4 + number % 11, name=f"k{kind}-{number}-", gap=float(number * 7 % 5))
            one.coords *= 1 + 0.02 * number
            one.smiles, one.group = smiles, f"g{number}"
            if number % 9 == 0:
                one.numbers[0] = 7
            frames.append(one)
    return frames


@pytest.fixture(scope="module", params=["set", "set.lmdb"])
def spelled(tmp_path_factory, request):
    pytest.importorskip("rdkit")
    folder = tmp_path_factory.mktemp("leaks") / request.param
    convert(source(*molecules()), folder, progress=False)
    kinds = [int(one.ids[0].split("-")[0][1:]) for one in molecules()]
    return folder, np.array(kinds)


@pytest.mark.parametrize("method", RUNS)
def test_spellings_of_a_molecule_stay_together(spelled, tmp_path, method):
    data, kinds = spelled
    out = tmp_path / "out"
    assert main(["split", method, str(data), str(out), *RUNS[method], "--write", "none"]) == 0
    for fold in json.loads((out / "split.json").read_text())["folds"]:
        sides = [set(kinds[fold[part]]) for part in ("train", "val", "id_test", "ood_test")]
        assert sum(map(len, sides)) == len(set(kinds)), "a molecule is on two sides"


def test_scaffold_counts_the_molecules_of_all_spellings(spelled, tmp_path):
    data, kinds = spelled
    out = tmp_path / "out"
    words = ["--ood", "2", "--id-test", "0", "--val", "0", "--write", "none"]
    assert main(["split", "scaffold", str(data), str(out), *words]) == 0
    (fold,) = json.loads((out / "split.json").read_text())["folds"]
    # Cyclohexane and furan are two rows each; cyclohexane's name comes first.
    assert set(kinds[fold["ood_test"]]) == {3}


def test_ignore_lets_them_part(spelled, tmp_path, capsys):
    data, kinds = spelled
    out = tmp_path / "out"
    words = ["--duplicates", "ignore", "--write", "none", "--id-test", "0.5"]
    assert main(["split", "random", str(data), str(out), *words]) == 0
    (fold,) = json.loads((out / "split.json").read_text())["folds"]
    assert set(kinds[fold["train"]]) & set(kinds[fold["id_test"]])
    assert "duplicates" not in capsys.readouterr().out


def test_scaffolds_that_a_group_joins_leave_together(tmp_path):
    pytest.importorskip("rdkit")
    smiles = ["c1ccoc1", "c1ccsc1", "c1ccsc1C"] + ["c1ccccc1"] * 6
    frames = []
    for i, one in enumerate(smiles):
        frame = molecule(5, name=f"m{i}-")
        frame.coords *= 1 + 0.02 * i
        frame.smiles, frame.group = one, "reaction" if i < 2 else f"g{i}"
        frames.append(frame)
    convert(source(*frames), tmp_path / "set", progress=False)
    words = ["--ood", "1", "--id-test", "0", "--val", "0", "--write", "none"]
    out = tmp_path / "out"
    assert main(["split", "scaffold", str(tmp_path / "set"), str(out), *words]) == 0
    (fold,) = json.loads((out / "split.json").read_text())["folds"]
    assert fold["ood_test"] == [0, 1, 2], "thiophene is out whole"


@pytest.fixture
def published(tmp_path):
    """Ten crystals of five structures (0 = 5, 1 = 6, ...) and folds that part them."""
    rows = [crystal(5 + (i % 5) / 10, f"c{i}-", gap=float(i)) for i in range(10)]
    convert(source(*rows), tmp_path / "set", progress=False)
    test = tmp_path / "test.json"
    test.write_text(json.dumps({"a": [0, 5], "b": [1, 2, 3]}))
    return tmp_path / "set", test


def test_a_published_fold_reports_its_leaks(published, tmp_path, capsys):
    data, test = published
    out = tmp_path / "out"
    words = ["split", "from-file", str(data), str(out), "--test-file", str(test)]
    assert main([*words, "--val", "0"]) == 0
    printed = capsys.readouterr().out
    assert "5 rows belong to an earlier row and stay where they were published" in printed
    assert "leakage     fold b: 3 of ood_test have an equal row in train" in printed
    assert main([*words, "--val", "2", "--overwrite"]) == 0
    capsys.readouterr()
    folds = json.loads((out / "split.json").read_text())["folds"]
    assert [fold["ood_test"] for fold in folds] == [[0, 5], [1, 2, 3]], "the test sets are kept"
    for fold in folds:
        assert not set(np.array(fold["val"]) % 5) & set(np.array(fold["train"]) % 5)
    assert main([*words, "--overwrite", "--duplicates", "ignore"]) == 0
    assert "leakage" not in capsys.readouterr().out


def test_official_and_rebuilt_folds_report_their_leaks(published, tmp_path, capsys):
    data, _ = published
    out = tmp_path / "out"
    assert main(["split", "matbench", str(data), str(out), "--target", "gap", "--val", "0"]) == 0
    first = capsys.readouterr().out
    folds = json.loads((out / "split.json").read_text())["folds"]
    for fold in folds:
        pairs = [row % 5 for row in fold["id_test"]]
        count = len(fold["id_test"]) if pairs[0] != pairs[1] else 0
        text = f"fold {fold['name']}: {count} of id_test have an equal row in train"
        assert (text in first) == bool(count)
    words = ["rebuild", str(data), str(tmp_path / "again"), "--from", str(out / "split.json")]
    assert main(["split", *words]) == 0
    second = capsys.readouterr().out
    assert [line for line in second.splitlines() if "leakage" in line] == [
        line for line in first.splitlines() if "leakage" in line
    ]


def test_counts_of_leaks():
    fold = Fold("", np.array([0, 1]), np.array([2]), np.array([3, 4]), np.array([5, 6]))
    assert leaks(fold, np.array([0, 1, 1, 0, 2, 2, 3])) == {"val": 1, "id_test": 1}
    assert leaks(fold, np.arange(7)) == {}


def test_only_methods_with_given_test_sets_keep_them():
    assert [name for name, method in METHODS.items() if method.keeps] == [
        "matbench",
        "from-file",
        "rebuild",
    ]
