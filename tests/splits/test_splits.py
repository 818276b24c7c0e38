"""The splits: sizes, rules, groups, and exact rebuilding."""

from __future__ import annotations

import hashlib
import json
import random

import numpy as np
import pytest
from scipy.stats import gaussian_kde
from sklearn.neighbors import KernelDensity

from deepmd_mft.cli import main
from deepmd_mft.data.convert import convert
from deepmd_mft.errors import UserError
from deepmd_mft.splits import boom, chemistry, omee, random_folds
from deepmd_mft.structures.duplicates import group_numbers
from deepmd_mft.structures.structure_set import StructureSet
from tests.helpers.frames import crystal, molecule, source
from tests.helpers.systems import write_system

RNG = np.random.default_rng(1)
APART = np.arange(200)


def covers(fold, n):
    """Every row is in exactly one part."""
    rows = np.concatenate(list(fold.parts().values()))
    return np.array_equal(np.sort(rows), np.arange(n))


def test_boom_is_its_released_script():
    values = np.concatenate([RNG.normal(size=900), RNG.normal(8, 3, size=100)])
    (fold,) = boom.boom(values, np.arange(1000), ood=100, val=0)
    # What the script does (boom/data/prepare_splits_qm9.py of FLASK-LLNL/BOOM).
    random.seed(42)
    model = KernelDensity(kernel="gaussian", bandwidth="scott").fit(values[:, None])
    ood = set(np.argpartition(np.exp(model.score_samples(values[:, None])), 100)[:100])
    train, iid = [], []
    for row in range(1000):
        if row not in ood:
            (iid if random.random() < 0.05 else train).append(row)  # noqa: S311
    assert set(fold.ood_test) == ood
    assert fold.id_test.tolist() == iid
    assert fold.train.tolist() == train
    assert not len(fold.val)


def test_boom_counts_equal_molecules_once():
    smiles = ["A", "B", "A", "C", "D", "E", "F", "G", "H", "I"]
    values = np.array([0.0, 0.0, 100.0, 0.1, 0.2, 0.1, 0.0, 0.3, 0.2, 0.1])
    (fold,) = boom.boom(values, group_numbers(smiles), ood=1, id_test=0.2, val=0.2)
    assert fold.ood_test.tolist() == [0, 2], "both rows of A, by the value of its last"
    assert covers(fold, 10)


def test_random_and_kfold_keep_groups_together():
    groups = group_numbers(RNG.integers(0, 40, size=200).tolist())
    (fold,) = random_folds.random_split(groups, id_test=0.2, val=0.1, seed=3)
    kinds = [set(groups[rows]) for rows in fold.parts().values()]
    assert covers(fold, 200)
    assert 40 <= len(fold.id_test) <= 50
    assert kinds[0].isdisjoint(kinds[1] | kinds[2])
    assert kinds[1].isdisjoint(kinds[2])
    again = random_folds.random_split(groups, id_test=0.2, val=0.1, seed=3)[0]
    np.testing.assert_array_equal(fold.train, again.train)
    made = random_folds.kfold(groups, folds=5, seed=0)
    assert sorted(np.concatenate([f.id_test for f in made]).tolist()) == list(range(200))
    assert all(covers(f, 200) for f in made)
    with pytest.raises(UserError, match="--folds 300"):
        random_folds.kfold(groups, folds=300)


def test_matbench_folds_are_official():
    # SHA-256 of the test rows in matbench 0.6's matbench_v0.1_validation.json.
    official = {
        4764: "1b1678f334b028dc6b67318d477251b74e720cd54de397a3fd2ca2aa9b71a4f7",  # dielectric
        636: "06e5ed441c178be7d12cae45e2e36c035c8ecdd6c67b9d6c356eb8200266e89d",  # jdft2d
    }
    for rows, checksum in official.items():
        made = random_folds.matbench(RNG.normal(size=rows), np.arange(rows), np.arange(rows))
        text = json.dumps([fold.id_test.tolist() for fold in made])
        assert hashlib.sha256(text.encode()).hexdigest() == checksum
    with pytest.raises(UserError, match="row 3 is not its own number"):
        random_folds.matbench(np.ones(9), np.array([0, 1, 2, 4, 5, 6, 7, 8, 9]), np.arange(9))


def test_loco():
    features = np.repeat(np.eye(5), 40, axis=0) * 10 + RNG.normal(scale=0.1, size=(200, 5))
    made = omee.loco(features, APART, clusters=5)
    tests = sorted(sorted(fold.ood_test) for fold in made)
    assert tests == np.arange(200).reshape(5, 40).tolist()
    assert all(covers(fold, 200) for fold in made)
    assert all(len(fold.val) == 32 for fold in made)


@pytest.mark.parametrize("space", ["x", "y"])
@pytest.mark.parametrize("neighbours", [0, 4])
def test_sparse(space, neighbours):
    features = RNG.normal(size=(200, 6))
    features[:3] += 30.0 * np.arange(1, 4)[:, None]
    values = np.concatenate([[50.0, -50.0, 80.0], RNG.normal(size=197)])
    sizes = {"clusters": 8, "candidates": 40}
    if space == "x":
        made = omee.sparse_x(features, APART, neighbours=neighbours, **sizes)
    elif neighbours:
        made = omee.sparse_y_cluster(values, features, APART, neighbours=neighbours, **sizes)
    else:
        made = omee.sparse_y(values, APART, **sizes)
    assert len(made) == 8
    tests = [fold.ood_test for fold in made]
    assert all(len(test) == 1 + neighbours for test in tests)
    together = np.concatenate(tests)
    assert len(set(together)) == len(together), "no sample in two clusters"
    assert all(covers(fold, 200) for fold in made)
    if space == "y":
        sparsest = set(np.argsort(gaussian_kde(values)(values), kind="stable")[:40])
        assert all(len(set(test) & sparsest) >= 1 for test in tests)
        assert {0, 1, 2} <= {row for test in tests for row in test}


def test_too_many_clusters():
    with pytest.raises(UserError, match=r"300 clusters .* give --clusters 200 or less"):
        omee.loco(RNG.normal(size=(200, 3)), APART, clusters=300)
    with pytest.raises(UserError, match="--candidates 500 exceeds the 200 rows"):
        omee.sparse_y(APART * 1.0, APART)
    with pytest.raises(UserError, match="do not leave any"):
        omee.sparse_y_cluster(APART * 1.0, APART[:, None], APART, candidates=100)


def test_chemistry():
    pytest.importorskip("rdkit")
    smiles = ["c1ccccc1C"] * 12 + ["C1CCCCC1O"] * 6 + ["CCO", "CCC"] + ["c1ccoc1"]
    groups = np.arange(len(smiles))
    (fold,) = chemistry.scaffold(smiles, groups, ood=3)
    assert fold.ood_test.tolist() == [18, 19, 20], "chains (2) and furan (1) are the rarest"
    with pytest.raises(UserError, match="'oops' in row 1"):
        chemistry.scaffold(["C", "oops"], np.arange(2), ood=1)
    numbers = [np.array([6, 1])] * 17 + [np.array([9, 6])] * 3
    (fold,) = chemistry.element_out(numbers, np.arange(20), elements="F")
    assert fold.ood_test.tolist() == [17, 18, 19]
    with pytest.raises(UserError, match="no structure contains Cl"):
        chemistry.element_out(numbers, np.arange(20), elements="Cl")
    natoms = np.repeat([3, 5, 9], [10, 8, 2])
    (fold,) = chemistry.size_out(natoms, np.arange(20), ood=0.1)
    assert fold.ood_test.tolist() == [18, 19]
    (fold,) = chemistry.size_out(natoms, np.arange(20), larger_than=3)
    assert len(fold.ood_test) == 10


@pytest.fixture
def data(tmp_path):
    """Sixty molecules of 3 to 6 atoms with a gap."""
    frames = [molecule(3 + i % 4, name=f"m{i}-", gap=float(RNG.normal())) for i in range(60)]
    for i, one in enumerate(frames):
        one.smiles = f"{'C' * (2 + i % 4)}{'N' * (i // 4)}"
    convert(source(*frames), tmp_path / "set", progress=False)
    return tmp_path / "set"


@pytest.mark.parametrize("kind", ["npy", "lmdb"])
def test_cli_and_rebuild(tmp_path, capsys, data, kind):
    if kind == "lmdb":
        frames = [molecule(4, name=f"m{i}-", gap=float(i % 7 + i / 100)) for i in range(60)]
        for i, one in enumerate(frames):
            one.smiles = f"C{'N' * i}"
        data = tmp_path / "set.lmdb"
        convert(source(*frames), data, progress=False)
    out = tmp_path / "split"
    assert main(["split", "boom", str(data), str(out), "--target", "gap", "--ood", "6"]) == 0
    printed = capsys.readouterr().out
    assert "ood_test           6   gap " in printed
    record = json.loads((out / "split.json").read_text())
    assert record["parameters"]["seed"] == 42
    (fold,) = record["folds"]
    whole = StructureSet.open(data)
    for part in ("train", "val", "id_test", "ood_test"):
        if fold[part]:
            piece = StructureSet.open(out / part)
            assert piece.rows.ids == [whole.rows.ids[row] for row in fold[part]]
            np.testing.assert_array_equal(piece.label("gap"), whole.label("gap")[fold[part]])
    again = tmp_path / "again"
    source_json = str(out / "split.json")
    assert main(["split", "rebuild", str(data), str(again), "--from", source_json]) == 0
    assert "checksums agree" in capsys.readouterr().out
    assert (again / "split.json").read_text() == (out / "split.json").read_text()


def test_rebuild_refuses_other_data(tmp_path, capsys, data):
    out = tmp_path / "split"
    assert main(["split", "random", str(data), str(out)]) == 0
    convert(source(*[molecule(3, name=f"x{i}-") for i in range(60)]), tmp_path / "o")
    text = str(out / "split.json")
    assert main(["split", "rebuild", str(tmp_path / "o"), str(tmp_path / "a"), "--from", text]) == 1
    assert "under other names or in another order" in capsys.readouterr().err
    energies = data / "3" / "set.000" / "energy.npy"
    np.save(energies, np.load(energies) + 1)
    assert main(["split", "rebuild", str(data), str(tmp_path / "b"), "--from", text]) == 1
    assert "same rows, other contents" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


def test_cli_errors(tmp_path, capsys, data):
    def complaint(*words: str) -> str:
        assert main(["split", *words]) == 1
        return capsys.readouterr().err

    out = str(tmp_path / "split")
    assert "needs --target; the set has energy, force, gap" in complaint("boom", str(data), out)
    assert "--ood = 10000 does not fit" in complaint("boom", str(data), out, "--target", "gap")
    assert "no label 'homo'" in complaint("boom", str(data), out, "--target", "homo")
    assert "need crystals" in complaint("loco", str(data), out)
    assert "is not a folder" in complaint("random", str(data / "nothing"), out)
    assert "nothing is left to train on" in complaint(
        "element-out", str(data), out, "--elements", "C"
    )
    assert "--elements na: 'na' is not a chemical element" in complaint(
        "element-out", str(data), out, "--elements", "na"
    )
    assert "no structure contains nothing" in complaint(
        "element-out", str(data), out, "--elements", ","
    )
    assert "--val = 0.99 does not fit" in complaint("random", str(data), out, "--val", "0.99")
    assert not (tmp_path / "split").exists()


def test_scaffold_without_smiles(tmp_path, capsys):
    pytest.importorskip("rdkit")
    convert(source(*[crystal(5 + i / 10, f"c{i}-") for i in range(4)]), tmp_path / "set")
    assert main(["split", "scaffold", str(tmp_path / "set"), str(tmp_path / "out")]) == 1
    assert "row 0 has no SMILES" in capsys.readouterr().err


def test_set_without_rows_table(tmp_path, data):
    (data / "rows.csv").unlink()
    (data / "dataset.json").unlink()
    out = tmp_path / "split"
    assert main(["split", "random", str(data), str(out), "--duplicates", "ignore"]) == 0
    assert StructureSet.open(out / "train").rows.ids[0].startswith("3:")


def test_folds_of_a_fold_file(tmp_path, capsys):
    rows = [crystal(5.0 + i / 10, f"c{i}-", gap=float(i)) for i in range(10)]
    rows[2].coords[0, 1] = 0.0  # skipped: source rows and rows differ from here on
    data = tmp_path / "set"
    convert(source(*rows), data, progress=False)
    test, val = tmp_path / "t.json", tmp_path / "v.json"
    test.write_text(json.dumps({"7": [3, 4], "9": [0]}))
    val.write_text(json.dumps({"7": [0], "9": [4, 5]}))
    arguments = ["split", "from-file", str(data), str(tmp_path / "out")]
    arguments += ["--test-file", str(test), "--val-file", str(val)]
    assert main(arguments) == 0
    fold = StructureSet.open(tmp_path / "out" / "fold_07" / "ood_test")
    assert fold.rows.ids == ["c3-5.3", "c4-5.4"], "row numbers are those of the source"
    test.write_text(json.dumps({"7": [2]}))
    assert main([*arguments, "--overwrite"]) == 1
    assert "row 2 is not in the data set" in capsys.readouterr().err
    test.write_text(json.dumps({"7": [3], "9": [4]}))
    val.write_text(json.dumps({"7": [3], "9": [5]}))
    assert main([*arguments, "--overwrite"]) == 1
    assert "fold '7': row 3 is in test and in validation" in capsys.readouterr().err
    val.write_text(json.dumps({"7": [0]}))
    assert main([*arguments, "--overwrite"]) == 1
    assert "fold '9' of the test file is not in the validation file" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["from-file", "matbench"])
def test_published_rows_of_systems_without_a_table(tmp_path, capsys, method):
    """They were counted system by system, which is no order that anybody published."""
    for name in ("10", "9"):
        write_system(tmp_path / "set" / name, symbols="C H", gap=np.ones((3, 1)), seed=len(name))
    file = tmp_path / "folds.json"
    file.write_text(json.dumps({"a": [0], "b": [4]}))
    options = {"from-file": ["--test-file", str(file)], "matbench": ["--target", "gap"]}[method]
    assert main(["split", method, str(tmp_path / "set"), str(tmp_path / "out"), *options]) == 1
    assert "has several systems and no rows.csv" in capsys.readouterr().err


def test_fold_file_of_another_data_set(tmp_path, capsys):
    rows = [crystal(5.0 + i / 10, f"c{i}-") for i in range(6)]
    convert(source(*rows), tmp_path / "set", progress=False)
    file = tmp_path / "folds.json"
    arguments = ["split", "from-file", str(tmp_path / "set"), str(tmp_path / "out")]
    arguments += ["--test-file", str(file)]
    for content, message in (
        ({"a": [0, 1], "b": [2, 3]}, "divides 4 rows among its folds, but the data set has 6"),
        ({"a": [0, 7]}, "row 7 is not in the data set, which has 6 rows"),
        ({"a": [0, 0]}, "names a row twice"),
        ({"a": 3}, "expected {fold: [row, ...]}"),
    ):
        file.write_text(json.dumps(content))
        assert main(arguments) == 1
        assert message in capsys.readouterr().err
    file.write_text("{")
    assert main(arguments) == 1
    assert "not a complete JSON file" in capsys.readouterr().err
