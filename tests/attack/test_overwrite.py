"""What ``--overwrite`` must not delete."""

from __future__ import annotations

import json
import shutil

import pytest

from deepmd_mft.checkpoints import selection
from deepmd_mft.errors import UserError
from tests.helpers.attacks import refused, told, write_molecules
from tests.helpers.trees import tree


@pytest.fixture
def place(tmp_path, converted):
    """A user's folder: data, a note, a run with a model."""
    shutil.copytree(converted, tmp_path / "place")
    place = tmp_path / "place"
    write_molecules(place / "raw.extxyz", 5)
    (place / "run").mkdir()
    (place / "run" / "model.ckpt-100.pt").write_bytes(b"weights")
    (place / "run" / "input.json").write_text(json.dumps({"training": {}}))
    (place / "template.json").write_text("{}")
    return place


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("split random {p}/npy {p}/npy", "is read here"),
        ("split random {p}/npy {p}", "contains"),
        ("split random {p}/set.lmdb {p}/set.lmdb", "choose a name without .lmdb"),
        ("split random {p}/npy {p}/npy/3", "lies inside"),
        ("split random {p}/npy {p}/run", "not written by dp-mft split"),
        ("split random {p}/npy {p}/set.lmdb", "choose a name without .lmdb"),
        ("split random {p}/npy {p}/raw.extxyz", "is a file"),
        ("convert {p}/raw.extxyz {p} --property gap=gap:eV", "not written by dp-mft convert"),
        ("convert {p}/raw.extxyz {p}/run --property gap=gap:eV", "not written by dp-mft convert"),
        ("evaluate {p}/run/model.ckpt-100.pt --split {p}/npy -o {p}/run", "contains"),
        ("evaluate {p}/run/model.ckpt-100.pt --split {p}/npy -o {p}/npy", "is read here"),
        ("evaluate {p}/run/model.ckpt-100.pt --split {p}/npy -o {p}", "contains"),
        ("input {p}/template.json -o {p}/template.json", "is read here"),
        ("input {p}/template.json --train {p}/npy -o {p}/npy/rows.csv", "lies inside"),
        ("input {p}/template.json -o {p}/run", "is not a file"),
        ("analyze embed {model} -s x={p}/raw.extxyz -o {p}/raw.extxyz", "is read here"),
        ("analyze domains {model} -s x={p}/npy --target y={p}/npy -o {p}/npy", "is read here"),
        ("analyze collapse {model} -s x={p}/npy -o {p}/run", "contains"),
    ],
)
def test_nothing_that_is_read_or_foreign(place, capsys, words, complaint):
    before = tree(place)
    words = words.format(p=place, model=f"-m a={place}/run/model.ckpt-100.pt")
    refused(told(capsys, *words.split(), "--overwrite"), complaint)
    assert tree(place) == before


@pytest.mark.parametrize("verb", ["convert", "split"])
@pytest.mark.parametrize("dangling", [False, True])
def test_a_linked_output(place, capsys, verb, dangling):
    target = place / ("nowhere" if dangling else "npy")
    (place / "link").symlink_to(target)
    source = [place / "raw.extxyz"] if verb == "convert" else ["random", place / "set.lmdb"]
    before = tree(place)
    for more in ([], ["--overwrite"]):
        done = told(capsys, verb, *source, place / "link", *more)
        refused(done, "is a symbolic link to", str(target))
    assert tree(place) == before


@pytest.mark.parametrize("name", ["selection.csv", "model.average.pt", "model.best.pt"])
def test_a_users_file_where_select_writes(tmp_path, name):
    run = tmp_path / "run"
    run.mkdir()
    target = run / name
    if name == "model.best.pt":
        target.symlink_to("elsewhere.pt")
    else:
        target.write_text("mine")
    before = tree(run)
    with pytest.raises(UserError, match=rf"{name} was not written by dp-mft select"):
        selection.check_own(run, overwrite=False)
    selection.check_own(run, overwrite=True)
    (run / "selection.json").write_text("{}")
    selection.check_own(run, overwrite=False)
    assert tree(run).items() > before.items()


def test_the_best_is_a_link_or_a_users(tmp_path):
    (tmp_path / "model.best.pt").write_bytes(b"mine")
    for overwrite in (False, True):
        with pytest.raises(UserError, match=r"model\.best\.pt is a file of its own"):
            selection.check_own(tmp_path, overwrite=overwrite)


def test_its_own_output_is_replaced(place, capsys):
    command = ("split", "random", place / "npy", place / "out", "--overwrite")
    assert told(capsys, *command).status == 0
    again = ("convert", place / "raw.extxyz", place / "npy", "--property", "gap=gap:eV")
    assert told(capsys, *again, "--overwrite").status == 0
    assert told(capsys, *command).status == 0
    (place / "out" / "train" / "3" / "my.txt").write_text("mine")
    refused(told(capsys, *command), "train/3/my.txt", "move it away")
