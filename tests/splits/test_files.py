"""Fold files, ``split.json`` and ``rows.csv`` that come from elsewhere."""

from __future__ import annotations

import gzip
import json

import pytest

from deepmd_mft.cli import main
from deepmd_mft.data.convert import convert
from tests.helpers.frames import crystal, source


@pytest.fixture
def data(tmp_path):
    """Eight crystals."""
    convert(source(*[crystal(5 + i / 10, f"c{i}-") for i in range(8)]), tmp_path / "set")
    return tmp_path / "set"


def listing(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def refused(capsys, *words):
    """Run ``dp-mft split``, which must refuse; return its message."""
    assert main(["split", *map(str, words)]) == 1
    return capsys.readouterr().err


BAD_NAMES = ["../x", "..", "", "a/b", "/data/x", ".hidden", "a\\b", "a\nb", "x" * 300]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_in_a_fold_file(tmp_path, capsys, data, name):
    file = tmp_path / "folds.json"
    file.write_text(json.dumps({"good": [0], name: [1]}))
    before = listing(tmp_path)
    message = refused(capsys, "from-file", data, tmp_path / "out", "--test-file", file)
    assert "cannot name a folder" in message
    assert str(file) in message
    assert listing(tmp_path) == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": [0, true]}', "fold 'a': True is not a row number"),
        ('{"a": [0, 1.0]}', "fold 'a': 1.0 is not a row number"),
        ('{"a": ["1"]}', "fold 'a': '1' is not a row number"),
        ('{"a": [null]}', "fold 'a': None is not a row number"),
        ('{"a": [[1], [2]]}', "fold 'a': [1] is not a row number"),
        ('{"a": [-1]}', "fold 'a': row -1 is not in the data set"),
        ('{"a": [8]}', "fold 'a': row 8 is not in the data set, which has 8 rows"),
        ('{"a": [1, 2, 1]}', "fold 'a' names a row twice (1)"),
        ('{"a": []}', "fold 'a' has no rows"),
        ('{"a": [1], "a": [2]}', "two folds called 'a'"),
        ('{"7": [1], "07": [2]}', "fold '07' and '7' would be written to one place, fold_07"),
        ('{"A": [1], "a": [2]}', "fold 'a' and 'A' would be written to one place, a"),
        ('{"split.json": [1]}', "would be written to one place"),
        ("{}", "names no folds"),
        ("[]", "fold '0' has no rows"),
        ("3", "expected {fold: [row, ...]} or a list of rows"),
        ('{"a": {"b": 1}}', "expected {fold: [row, ...]} or a list of rows"),
        ("[" * 100_000, "not a complete JSON file"),
        ("\xff", "not a complete JSON file"),
    ],
)
def test_fold_files_that_are_none(tmp_path, capsys, data, text, message):
    file = tmp_path / "folds.json"
    file.write_bytes(text.encode("latin-1"))
    assert message in refused(capsys, "from-file", data, tmp_path / "out", "--test-file", file)
    assert not (tmp_path / "out").exists()


def test_a_compressed_fold_file_that_is_cut_off(tmp_path, capsys, data):
    file = tmp_path / "folds.json.gz"
    file.write_bytes(gzip.compress(json.dumps({"a": list(range(8))}).encode())[:-6])
    words = ("from-file", data, tmp_path / "out", "--test-file")
    assert "not a complete JSON file" in refused(capsys, *words, file)
    assert "not a complete JSON file" in refused(capsys, *words, tmp_path / "nothing.json")


@pytest.fixture
def record(tmp_path, data):
    """A split.json of two folds, and its path."""
    assert main(["split", "kfold", str(data), str(tmp_path / "made"), "--folds", "2"]) == 0
    path = tmp_path / "made" / "split.json"
    return json.loads(path.read_text()), path


def edited(record, *path_and_value):
    *path, key, value = path_and_value
    content = record
    for step in path:
        content = content[step]
    if value is KeyError:
        del content[key]
    else:
        content[key] = value
    return record


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_in_a_split_json(tmp_path, capsys, data, record, name):
    content, path = record
    path.write_text(json.dumps(edited(content, "folds", 1, "name", name)))
    before = listing(tmp_path)
    message = refused(capsys, "rebuild", data, tmp_path / "out", "--from", path)
    assert f"{path}, folds[1], name: " in message
    assert "cannot name a folder" in message
    assert listing(tmp_path) == before


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (("folds", 0, "train", 3), "folds[0], train: expected a list, not 3"),
        (("folds", 0, "train", {"0": 1}), "folds[0], train: expected a list, not {'0': 1}"),
        (("folds", 1, "val", KeyError), "folds[1] has no val"),
        (("folds", 0, "train", 0, "1"), "folds[0], train[0]: '1' is not a row number"),
        (("folds", 0, "train", 0, 1.5), "folds[0], train[0]: 1.5 is not a row number"),
        (("folds", 0, "train", 0, None), "folds[0], train[0]: None is not a row number"),
        (("folds", 0, "train", 0, [1]), "folds[0], train[0]: [1] is not a row number"),
        (("folds", 0, "train", 0, True), "folds[0], train[0]: True is not a row number"),
        (("folds", 0, "train", 0, -1), "folds[0], train[0]: row -1 is not one of the 8 rows"),
        (("folds", 0, "train", 0, 8), "row 8 is not one of the 8 rows (0 to 7)"),
        (("folds", 0, "ood_test", [5, 5]), "is in "),
        (("folds", 0, "name", 3), "folds[0], name: expected a text, not 3"),
        (("folds", 0, "sha256", []), "folds[0], sha256: expected an object, not []"),
        (("folds", 0, "x"), "folds[0] is not an object but 'x'"),
        (("folds", {}), "folds: expected a list, not {}"),
        (("folds", []), "folds: there are none"),
        (("folds", KeyError), "has no folds"),
        (("data", "rows", "8"), "data, rows: expected a whole number, not '8'"),
        (("data", "rows", 9), "divides 9 rows of"),
        (("data", 8), "data: expected an object, not 8"),
        (("method", None), "method: expected a text, not None"),
        (("parameters", KeyError), "has no parameters"),
        (("format", "x"), "is not a split.json of dp-mft split"),
    ],
)
def test_split_json_that_is_none(tmp_path, capsys, data, record, edit, message):
    content, path = record
    path.write_text(json.dumps(edited(content, *edit)))
    found = refused(capsys, "rebuild", data, tmp_path / "out", "--from", path)
    assert message in found
    assert str(path) in found
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["[1, 2]", "{", "", "\xff", "[" * 100_000, "null"])
def test_other_files_called_split_json(tmp_path, capsys, data, text):
    path = tmp_path / "split.json"
    path.write_bytes(text.encode("latin-1"))
    assert "split.json" in refused(capsys, "rebuild", data, tmp_path / "out", "--from", path)


def test_rebuild_says_what_it_could_compare(tmp_path, capsys, data):
    words = ["split", "kfold", str(data), str(tmp_path / "made"), "--folds", "2"]
    assert main([*words, "--write", "1"]) == 0
    assert not (tmp_path / "made" / "fold_00").exists()
    capsys.readouterr()
    file = tmp_path / "made" / "split.json"
    assert main(["split", "rebuild", str(data), str(tmp_path / "again"), "--from", str(file)]) == 0
    assert f"checksums agree with {file}: 3 of 6 folders" in capsys.readouterr().out
    assert (tmp_path / "again" / "fold_00" / "train" / "rows.csv").is_file()


@pytest.mark.parametrize(
    ("method", "words", "message"),
    [
        ("kfold", ["--write", "7"], "--write: no fold '7'; there are 0, 1, 2, 3, 4"),
        ("random", ["--write", "0"], "--write 0: this split has one fold, without a name"),
    ],
)
def test_folds_to_write_that_there_are_not(tmp_path, capsys, data, method, words, message):
    assert message in refused(capsys, method, data, tmp_path / "out", *words)


@pytest.mark.parametrize("system", ["../other", "/data/x", "2/../../other", "2\0"])
def test_systems_outside_of_the_set(tmp_path, capsys, data, system):
    convert(source(*[crystal(6 + i / 10, f"d{i}-") for i in range(8)]), tmp_path / "other")
    table = data / "rows.csv"
    table.write_text(table.read_text().replace(",2,7\n", f",{system},7\n"))
    before = listing(tmp_path)
    message = refused(capsys, "random", data, tmp_path / "out")
    assert f"{table}, column system: " in message
    assert listing(tmp_path) == before


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",7,2,7\n", ",7,2,x\n", "column frame: 'x' is not a row number (row 7)"),
        (",7,2,7\n", ",7,2,-1\n", "column frame: '-1' is not a row number (row 7)"),
        (",7,2,7\n", ",1.0,2,7\n", "column source_row: '1.0' is not a row number (row 7)"),
        (",7,2,7\n", ",7\n", "line 9: 5 fields instead of 7; was the table cut off?"),
        ("row,", "now,", "not a table of rows written by dp-mft convert"),
    ],
)
def test_tables_of_rows_that_are_broken(tmp_path, capsys, data, old, new, message):
    table = data / "rows.csv"
    text = table.read_text()
    assert old in text
    table.write_text(text.replace(old, new))
    found = refused(capsys, "random", data, tmp_path / "out")
    assert message in found
    assert str(table) in found
