"""Whole or not at all, one process per output, and nothing replaced but a verb's own."""

# ruff: noqa: PT012 - the failing block is what is tested

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from deepmd_mft.errors import UserError
from deepmd_mft.files.records import write_record
from deepmd_mft.files.staging import atomic_file, check_folder, staged_file, staged_folder
from tests.helpers.processes import hold
from tests.helpers.trees import tree


def write(out, content="new", *, verb="split", inputs=(), overwrite=False):
    """Write a folder as a verb does."""
    with staged_folder(out, verb, inputs, overwrite=overwrite) as folder:
        (folder / "train").mkdir()
        (folder / "train" / "type.raw").write_text(content)
        write_record(folder, verb, {"of": content})


def test_a_folder_appears_when_it_is_complete(tmp_path):
    out = tmp_path / "a" / "b" / "out"
    with staged_folder(out, "split") as folder:
        (folder / "half").touch()
        assert not out.exists()
        write_record(folder, "split", {"seed": 3})
    assert json.loads((out / "split.json").read_text()) == {
        "seed": 3,
        "written": {"by": "dp-mft split", "files": ["half", "split.json"]},
    }
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    umask = os.umask(0)
    os.umask(umask)
    assert out.stat().st_mode & 0o777 == 0o777 & ~umask


@pytest.mark.parametrize("error", [ValueError("bug"), KeyboardInterrupt()])
def test_nothing_is_left_of_a_failure(tmp_path, error):
    with pytest.raises(type(error)), staged_folder(tmp_path / "new" / "out", "split") as folder:
        (folder / "half").touch()
        raise error
    assert not list(tmp_path.iterdir()), "the folders made above the output are removed too"


def test_an_interrupt_says_what_was_not_written(tmp_path):
    with (
        pytest.raises(KeyboardInterrupt, match="out was not written"),
        staged_folder(tmp_path / "out", "split"),
    ):
        raise KeyboardInterrupt


def test_only_with_overwrite_and_only_the_same_verb(tmp_path):
    out = tmp_path / "out"
    write(out, "old")
    with pytest.raises(UserError, match="exists; choose another name or give --overwrite"):
        write(out)
    with pytest.raises(UserError, match=r"not written by dp-mft evaluate \(no evaluation.json"):
        write(out, verb="evaluate", overwrite=True)
    assert (out / "train" / "type.raw").read_text() == "old"
    write(out, overwrite=True)
    assert (out / "train" / "type.raw").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("name", ["notes.txt", "train/gap.npy", "fold_07/deep/x"])
def test_a_users_file_is_not_deleted(tmp_path, name):
    out = tmp_path / "out"
    write(out)
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    (out / name).write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(
        UserError, match=rf"did not write there: {re.escape(name)}; .* move it away"
    ):
        write(out, overwrite=True)
    assert tree(tmp_path) == before


def test_a_file_that_came_while_the_new_one_was_made(tmp_path):
    out = tmp_path / "out"
    write(out)
    with (
        pytest.raises(UserError, match=r"notes\.txt"),
        staged_folder(out, "split", overwrite=True) as folder,
    ):
        write_record(folder, "split", {})
        (out / "notes.txt").write_text("mine")
    assert (out / "notes.txt").read_text() == "mine"
    assert (out / "train" / "type.raw").read_text() == "new"


def test_a_linked_folder_in_the_output_is_a_users_too(tmp_path):
    out = tmp_path / "out"
    write(out)
    (tmp_path / "data").mkdir()
    (out / "more").symlink_to(tmp_path / "data")
    with pytest.raises(UserError, match="more"):
        write(out, overwrite=True)
    assert (out / "more").is_symlink()


def test_the_lock_of_a_reader_of_lmdb_is_in_nobodys_way(tmp_path):
    out = tmp_path / "out"
    write(out)
    (out / "train" / "lock.mdb").touch()
    write(out, overwrite=True)
    assert not (out / "train" / "lock.mdb").exists()


def test_only_conversions_are_called_lmdb(tmp_path):
    with pytest.raises(UserError, match="replay writes a folder of other files; choose a name"):
        check_folder(tmp_path / "set.lmdb", "replay")
    check_folder(tmp_path / "set.lmdb", "convert")


def test_inputs_are_never_replaced(tmp_path):
    out = tmp_path / "out"
    write(out)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "29").symlink_to(out / "train")  # a linked system, as dp reads it
    (tmp_path / "alias").symlink_to(out)
    before = tree(tmp_path)
    for given, words in [
        (out, "is read here"),
        (tmp_path / "alias", "is read here"),
        (out / "train", "contains"),
        (out / "train" / "type.raw", "contains"),
        (elsewhere, "contains"),
        (tmp_path, "lies inside"),
    ]:
        with pytest.raises(UserError, match=words):
            write(out, inputs=[given], overwrite=True)
    assert tree(tmp_path) == before
    write(out, inputs=[tmp_path / "other"], overwrite=True)


@pytest.mark.parametrize("target", ["other", "nowhere"])
def test_a_linked_output_is_refused(tmp_path, target):
    write(tmp_path / "other")
    (tmp_path / "out").symlink_to(tmp_path / target)
    before = tree(tmp_path)
    for overwrite in (False, True):
        with pytest.raises(UserError, match=f"out is a symbolic link to .*{target}"):
            write(tmp_path / "out", overwrite=overwrite)
        with (
            pytest.raises(UserError, match="symbolic link"),
            staged_file(tmp_path / "out", overwrite=overwrite),
        ):
            pass
    assert tree(tmp_path) == before


def test_the_working_directory_as_output(tmp_path, monkeypatch):
    write(tmp_path / "out", "old")
    monkeypatch.chdir(tmp_path / "out")
    with pytest.raises(UserError, match="exists"):
        write(Path())
    write(Path(), overwrite=True)
    assert (tmp_path / "out" / "train" / "type.raw").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


_SET = {"rows.csv": "", "8/type.raw": "", "8/set.000/coord.npy": "", "8/nopbc": ""}
FIRST_VERSION = {
    "convert": {**_SET, "dataset.json": {"format": "deepmd_mft data set, version 1"}},
    "split": {
        **{f"fold_00/train/{name}": text for name, text in _SET.items()},
        "split.json": {"format": "deepmd_mft split, version 1"},
    },
    "evaluate": {"metrics.csv": "", "evaluation.json": {"made_by": "dp-mft evaluate"}},
}


@pytest.mark.parametrize("verb", FIRST_VERSION)
def test_what_the_first_version_wrote(tmp_path, verb):
    out = tmp_path / "out"
    for name, text in FIRST_VERSION[verb].items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text if isinstance(text, str) else json.dumps(text))
    (out / "model.ckpt-100.pt").touch()
    with pytest.raises(UserError, match=r"model\.ckpt-100\.pt"):
        write(out, verb=verb, overwrite=True)
    (out / "model.ckpt-100.pt").unlink()
    write(out, verb=verb, overwrite=True)
    assert (out / "train" / "type.raw").read_text() == "new"


def test_a_part_of_a_split_is_no_conversion(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    record = {"format": "deepmd_mft data set, version 1", "part_of": "/data/qm9"}
    (out / "dataset.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"dataset\.json"):
        write(out, verb="convert", overwrite=True)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"written": {"by": 3}}'])
def test_a_record_of_somebody_else(tmp_path, text):
    out = tmp_path / "out"
    out.mkdir()
    (out / "split.json").write_text(text)
    with pytest.raises(UserError, match=r"split\.json"):
        write(out, overwrite=True)
    assert (out / "split.json").read_text() == text


def test_an_empty_folder_is_replaced(tmp_path):
    (tmp_path / "out" / "sub").mkdir(parents=True)
    write(tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "split.json").is_file()


def test_files(tmp_path):
    out = tmp_path / "input.json"
    with staged_file(out) as partial:
        assert partial.suffix == ".json"
        partial.write_text("1")
    with pytest.raises(UserError, match="exists"), staged_file(out):
        pass
    with (
        pytest.raises(UserError, match="is read here"),
        staged_file(out, [tmp_path / "x" / ".." / "input.json"], overwrite=True),
    ):
        pass
    with (
        pytest.raises(UserError, match="lies inside"),
        staged_file(out, [tmp_path], overwrite=True),
    ):
        pass
    with pytest.raises(UserError, match="not a file"), staged_file(tmp_path, overwrite=True):
        pass
    with staged_file(out, overwrite=True) as partial:
        partial.write_text("2")
    with pytest.raises(ValueError, match="bug"), atomic_file(out) as partial:
        partial.write_text("3")
        raise ValueError("bug")
    assert out.read_text() == "2"
    with atomic_file(out) as partial:
        partial.write_text("4")
    assert out.read_text() == "4"
    assert [path.name for path in tmp_path.iterdir()] == ["input.json"]


def test_the_second_process_is_told_who_is_in_the_way(tmp_path):
    process = hold(tmp_path / "out")
    try:
        with pytest.raises(UserError, match=rf"out is being written by process {process.pid} on"):
            write(tmp_path / "out")
        write(tmp_path / "other")
    finally:
        process.kill()
        process.wait()
    write(tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "out"]


def test_leftovers_are_removed_and_said(tmp_path, caplog):
    process = hold(tmp_path / "out")
    process.kill()
    process.wait()
    (tmp_path / ".out.partial").mkdir()  # a user's: the names of ours say host and process
    (left,) = tmp_path.glob(".out.*.partial")
    write(tmp_path / "out")
    assert f"removed {left}" in caplog.text
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.partial", "out"]


def test_killed_between_moving_the_old_and_the_new(tmp_path):
    write(tmp_path / "out", "old")
    do = "(folder / 'new').mkdir(); Path(sys.argv[1]).rename(folder / 'old')"
    process = hold(tmp_path / "out", do=do)
    process.kill()
    process.wait()
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="exists"):
        write(tmp_path / "out")
    assert (tmp_path / "out" / "train" / "type.raw").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_old_is_kept_if_the_new_cannot_be_put_in_place(tmp_path, monkeypatch):
    out = tmp_path / "out"
    write(out, "old")
    rename = Path.rename

    def fail(self, target):
        if self.name == "new":
            raise OSError(39, "Directory not empty")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(UserError, match="cannot be put in place"):
        write(out, overwrite=True)
    assert (out / "train" / "type.raw").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_leftovers_of_files_that_are_not_locked(tmp_path, caplog):
    make = "from deepmd_mft.files.lock import make_temporary; make_temporary(Path(sys.argv[1]))"
    process = hold(tmp_path / "a.csv", "locked", make)
    with atomic_file(tmp_path / "a.csv") as partial:
        partial.write_text("1")
    (left,) = tmp_path.glob(".a.csv.*.partial")  # of a process that lives
    process.kill()
    process.wait()
    with atomic_file(tmp_path / "a.csv") as partial:
        partial.write_text("2")
    assert f"removed {left}" in caplog.text
    assert not list(tmp_path.glob(".a.csv.*.partial"))


def test_without_locks_nothing_of_others_is_removed(tmp_path, monkeypatch):
    """As on a network file system: the first that is complete wins."""

    def refuse(*args):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with pytest.raises(UserError, match="exists"), staged_folder(tmp_path / "out", "split") as one:
        monkeypatch.setattr(os, "getpid", lambda: 1)  # another process
        write(tmp_path / "out", "other")
        monkeypatch.undo()
        assert one.is_dir()
        write_record(one, "split", {})
    assert (tmp_path / "out" / "train" / "type.raw").read_text() == "other"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_planted_lock_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / ".out.dp-mft.lock").symlink_to(victim)
    with pytest.raises(UserError, match="out cannot be written"):
        write(tmp_path / "out")
    assert victim.read_text() == "mine"


def test_many_processes_one_output(tmp_path):
    """Every one of them either wrote all of it, or was told; the lock file never doubles."""
    code = """
import sys
from pathlib import Path
from deepmd_mft.errors import UserError
from deepmd_mft.files.records import write_record
from deepmd_mft.files.staging import staged_folder
me, out = sys.argv[1], Path(sys.argv[2])
for turn in range(40):
    try:
        with staged_folder(out, "split", overwrite=True) as folder:
            for i in range(5):
                (folder / f"{i}").write_text(f"{me} {turn}")
            write_record(folder, "split", {"by": f"{me} {turn}"})
    except UserError as error:
        assert "is being written by" in str(error), error
"""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(i), str(tmp_path / "out")],
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(3)
    ]
    errors = [process.communicate()[1] for process in started]
    assert not any(process.returncode for process in started), errors
    by = json.loads((tmp_path / "out" / "split.json").read_text())["by"]
    assert {(tmp_path / "out" / f"{i}").read_text() for i in range(5)} == {by}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_name_that_is_too_long(tmp_path):
    with pytest.raises(UserError, match="cannot be written"):
        write(tmp_path / ("x" * 250))
