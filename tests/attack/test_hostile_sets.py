"""Data sets that lie, are cut off, or would run something."""

from __future__ import annotations

import csv
import gzip
import os
import pickle
import shutil
import signal

import lmdb
import msgpack
import numpy as np
import pytest

from tests.helpers.attacks import HUGE, Touch, harmless, header, refused, run, saved, told
from tests.helpers.trees import tree


def bad_arrays(touched):
    """Contents of an ``.npy`` file that should hold 40 rows of one number."""
    return {
        "pickle": pickle.dumps(Touch(touched)),
        "pickle in an array": saved(np.array([Touch(touched)] * 40, dtype=object)),
        "objects": saved(np.array([None, "a"] * 20, dtype=object), allow_pickle=True),
        "texts": saved(np.array(["a"] * 40)),
        "complex": saved(np.ones((40, 1), dtype=complex)),
        "times": saved(np.zeros((40, 1), dtype="datetime64[s]")),
        "records": saved(np.zeros(40, dtype=[("a", "f8")])),
        "cut off": saved(np.ones((40, 1)))[:200],
        "empty": b"",
        "claims terabytes": header((HUGE, 1)) + bytes(1000),
        "claims a negative size": header((-40, 1)) + bytes(1000),
        "too few rows": saved(np.ones((39, 1))),
        "text": b"1.0\n" * 40,
        "archive": gzip.compress(bytes(1000)),
        "version 9": b"\x93NUMPY\x09\x00" + bytes(200),
        "a header that is code": b"\x93NUMPY\x01\x00\x50\x00"
        + b"__import__('os').abort()".ljust(80),
    }


KINDS = list(bad_arrays(None))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["gap", "coord"])
def test_arrays(npy, capsys, kind, name):
    touched = npy.parent.parent.parent / "touched"
    content = bad_arrays(touched)[kind]
    path = npy / "3" / "set.000" / f"{name}.npy"
    path.write_bytes(content)
    before = tree(npy.parent)
    out = npy.parent.parent / "out"
    done = told(capsys, "split", "boom", npy, out, "--target", "gap", "--ood", 10)
    harmless(done, npy.parent, before, touched, str(path))


@pytest.mark.parametrize("kind", ["cut off", "texts", "claims terabytes"])
def test_types(npy, capsys, kind):
    touched = npy.parent.parent.parent / "touched"
    path = npy / "3" / "set.000" / "real_atom_types.npy"
    path.write_bytes(bad_arrays(touched)[kind])
    before = tree(npy.parent)
    done = told(capsys, "split", "random", npy, npy.parent.parent / "out")
    harmless(done, npy.parent, before, touched, str(path))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("type.raw", "0\nx\n0\n"),
        ("type.raw", "0\n0\n"),
        ("type.raw", "\x00\xff"),
        ("type_map.raw", "O\nQq\n"),
        ("type_map.raw", ""),
    ],
)
def test_texts_of_a_system(npy, capsys, name, text):
    path = npy / "3" / name
    path.write_text(text, encoding="latin-1")
    before = tree(npy.parent)
    done = told(capsys, "split", "random", npy, npy.parent.parent / "out")
    harmless(done, npy.parent, before, npy / "touched", str(npy / "3"))


def encoded(array, **changes):
    array = np.asarray(array)
    return {
        "type": str(array.dtype),
        "shape": list(array.shape),
        "data": array.tobytes(),
        **changes,
    }


def bad_records(touched):
    """Changes of an LMDB record: key to value, None to leave it out; or the whole of it."""
    return {
        "no msgpack": b"\xc1\xc1\xc1",
        "a list": msgpack.packb([1, 2]),
        "a pickle": pickle.dumps(Touch(touched)),
        "empty": b"",
        "no coords": {"coords": None},
        "no types": {"atom_types": None},
        "type 99": {"atom_types": encoded(np.array([0, 1, 99], dtype=np.int32))},
        "type -7": {"atom_types": encoded(np.array([0, 1, -7], dtype=np.int32))},
        "objects": {"coords": encoded(np.zeros((3, 3)), type="object")},
        "text": {"coords": "abc"},
        "impossible shape": {"coords": encoded(np.zeros((3, 3)), shape=[3, 4])},
        "huge shape": {"coords": encoded(np.zeros((3, 3)), shape=[HUGE, HUGE])},
        "negative shape": {"coords": encoded(np.zeros((3, 3)), shape=[-1, -1])},
        "unknown dtype": {"coords": encoded(np.zeros((3, 3)), type="f9")},
        "claims a huge array": {"coords": msgpack.ExtType(5, b"x" * 10)},
    }


def change_lmdb(path, change):
    """Change record 7, or the metadata."""
    key = b"__metadata__" if path.name == "meta.lmdb" else b"000000000007"
    with lmdb.open(str(path), lock=False) as env, env.begin(write=True) as transaction:
        record = change
        if isinstance(change, dict):
            record = {**msgpack.unpackb(transaction.get(key), raw=False), **change}
            record = msgpack.packb({k: v for k, v in record.items() if v is not None})
        if record:
            transaction.put(key, record)
        else:
            transaction.delete(key)


@pytest.mark.parametrize("kind", list(bad_records(None)))
def test_records_of_an_lmdb(converted, tmp_path, capsys, kind):
    touched = tmp_path.parent / f"touched by {kind}"
    path = tmp_path / "in" / "set.lmdb"
    shutil.copytree(converted / "set.lmdb", path)
    change_lmdb(path, bad_records(touched)[kind])
    before = tree(path.parent)
    done = told(capsys, "split", "random", path, tmp_path / "out")
    harmless(done, path.parent, before, touched, str(path))


@pytest.mark.parametrize(
    "change",
    [
        b"",
        b"\xc1",
        msgpack.packb([]),
        {"nframes": None},
        {"nframes": HUGE},
        {"nframes": -1},
        {"nframes": "40"},
        {"frame_idx_fmt": "99999999999d"},
        {"frame_idx_fmt": "x{}"},
        {"type_map": ["Qq", "H"]},
        {"type_map": 3},
        {"frame_nlocs": [1]},
        {"frame_nlocs": "abc"},
    ],
)
def test_metadata_of_an_lmdb(converted, tmp_path, capsys, change):
    path = tmp_path / "in" / "meta.lmdb"
    shutil.copytree(converted / "set.lmdb", path)
    (path / "rows.csv").unlink()
    change_lmdb(path, change)
    before = tree(path.parent)
    done = told(capsys, "split", "random", path, tmp_path / "out")
    harmless(done, path.parent, before, tmp_path / "touched", str(path))


@pytest.mark.parametrize("part", [0.0, 0.3, 0.9])
def test_a_truncated_lmdb(converted, tmp_path, part):
    """In a process of its own: reading beyond the end of a mapped file would kill it."""
    path = tmp_path / "in" / "set.lmdb"
    shutil.copytree(converted / "set.lmdb", path)
    size = (path / "data.mdb").stat().st_size
    os.truncate(path / "data.mdb", int(part * size))
    before = tree(path.parent)
    done = run("split", "random", path, tmp_path / "out")
    assert done.status != -signal.SIGBUS
    harmless(done, path.parent, before, tmp_path / "touched", str(path))


@pytest.mark.parametrize("name", ["../out2/x", "/tmp/x", "..", "a/../../x", "nothing", "3\n", ""])  # noqa: S108
def test_systems_of_rows(npy, capsys, name):
    path = npy / "rows.csv"
    with path.open(newline="") as handle:
        rows = list(csv.reader(handle))
    rows[5][5] = name
    with path.open("w", newline="") as handle:
        csv.writer(handle).writerows(rows)
    shutil.copytree(npy / "3", npy.parent / "out2" / "x")
    before = tree(npy.parent)
    done = told(capsys, "split", "random", npy, npy.parent.parent / "out")
    harmless(done, npy.parent, before, npy / "touched", "rows.csv")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "[" * 100_000, '{"units": 3}'])
def test_records_of_a_set(npy, capsys, text):
    (npy / "dataset.json").write_text(text)
    before = tree(npy.parent)
    done = told(
        capsys, "split", "boom", npy, npy.parent.parent / "out", "--target", "gap", "--ood", 5
    )
    harmless(done, npy.parent, before, npy / "touched", "dataset.json")


@pytest.mark.parametrize(
    "name", ["type.raw", "type_map.raw", "nopbc", "set.000/gap.npy", "set.000/coord.npy"]
)
@pytest.mark.parametrize("dangling", [False, True])
def test_linked_files_of_a_system(npy, tmp_path, capsys, name, dangling):
    path = npy / "3" / name
    secret = npy.parent / "secret"
    shutil.move(path, secret)
    path.symlink_to(npy.parent / "nowhere" if dangling else secret)
    before = tree(npy.parent)
    done = told(capsys, "split", "random", npy, tmp_path / "out")
    harmless(done, npy.parent, before, tmp_path / "touched", str(npy if dangling else path))


def test_unknown_files_of_a_system_are_not_copied(npy, tmp_path, capsys):
    """Neither a link to a secret nor a user's notes get into a split."""
    (npy.parent / "secret").write_text("secret")
    (npy / "3" / "notes.raw").symlink_to(npy.parent / "secret")
    (npy / "3" / "mine.txt").write_text("mine")
    os.mkfifo(npy / "3" / "pipe")
    done = told(capsys, "split", "random", npy, tmp_path / "out")
    if done.status:
        refused(done, "notes.raw")
        return
    names = {path.name for path in (tmp_path / "out").rglob("*")}
    assert not {"notes.raw", "mine.txt", "pipe"} & names


def test_linked_systems_are_read(npy, tmp_path, capsys):
    """A linked folder is a system, as for dp."""
    shutil.move(npy / "3", npy.parent / "elsewhere")
    (npy / "3").symlink_to(npy.parent / "elsewhere")
    assert told(capsys, "split", "random", npy, tmp_path / "out").status == 0
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))
