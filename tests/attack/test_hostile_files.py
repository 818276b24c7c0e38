"""Files that lie, are cut off, or would run something: one message, nothing executed or lost."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import pickle
import shutil
import signal
import zipfile

import h5py
import lmdb
import msgpack
import numpy as np
import pytest
from numpy.lib import format as npy_format

from tests.helpers.attacks import Touch, refused, run, told, write_molecules
from tests.helpers.trees import tree

HUGE = 10**13


def header(shape, descr="<f8"):
    """Return the start of an ``.npy`` file of such a shape."""
    text = io.BytesIO()
    npy_format.write_array_header_1_0(
        text, {"descr": descr, "fortran_order": False, "shape": shape}
    )
    return text.getvalue()


def saved(array, **options):
    """Return an array as ``numpy.save`` writes it."""
    text = io.BytesIO()
    np.save(text, array, **options)
    return text.getvalue()


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


@pytest.fixture
def npy(converted, tmp_path):
    """A copy of the npy set, to be broken, and a place for outputs."""
    shutil.copytree(converted / "npy", tmp_path / "in" / "set")
    return tmp_path / "in" / "set"


def harmless(done, place, before, touched, *words):
    """Assert that a command was refused, changed nothing, left nothing and executed nothing."""
    refused(done, *words)
    assert not touched.exists(), "the file was executed"
    assert tree(place) == before
    assert sorted(path.name for path in place.parent.iterdir()) == [place.name]


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
        {"type_map": None},
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


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "[" * 100_000, '{"units": 3}', '{"files": 3}']
)
def test_records_of_a_set(npy, capsys, text):
    (npy / "dataset.json").write_text(text)
    before = tree(npy.parent)
    done = told(
        capsys, "split", "boom", npy, npy.parent.parent / "out", "--target", "gap", "--ood", 5
    )
    harmless(done, npy.parent, before, npy / "touched", "dataset.json")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "../x"),
        ("name", "/tmp/x"),  # noqa: S108
        ("name", ".."),
        ("name", 3),
        ("name", "a\nb"),
        ("train", 3),
        ("train", ["a"]),
        ("train", [[1], [2]]),
        ("train", [-1]),
        ("train", [10**30]),
        ("train", [1.5]),
        ("train", None),
        ("val", {"a": 1}),
        ("sha256", []),
        ("sha256", {"train": 3}),
    ],
)
def test_rebuild(npy, capsys, tmp_path, key, value):
    made = npy.parent / "made"
    assert told(capsys, "split", "random", npy, made).status == 0
    record = json.loads((made / "split.json").read_text())
    record["folds"][0][key] = value
    (made / "split.json").write_text(json.dumps(record))
    before = tree(npy.parent)
    done = told(capsys, "split", "rebuild", npy, tmp_path / "out", "--from", made / "split.json")
    harmless(done, npy.parent, before, tmp_path / "touched")


@pytest.mark.parametrize(
    "content",
    [
        {"../x": [1]},
        {"/x": [1]},
        {"a": [1], "../b": [2]},
        {"a": 3},
        {"a": ["1"]},
        {"a": [[1]]},
        {"a": [True]},
        {"a": [-1]},
        {"a": [10**30]},
        {},
        [],
        3,
    ],
)
def test_fold_files(npy, capsys, tmp_path, content):
    path = npy.parent / "folds.json"
    path.write_text(json.dumps(content))
    before = tree(npy.parent)
    done = told(capsys, "split", "from-file", npy, tmp_path / "out", "--test-file", path)
    harmless(done, npy.parent, before, tmp_path / "touched", str(path))


def test_npz_that_claims_terabytes(tmp_path):
    """Converted in a process of limited memory."""
    path = tmp_path / "in" / "md17.npz"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("R.npy", header((HUGE, 3, 3)) + bytes(1000))
        archive.writestr("z.npy", saved(np.array([8, 1, 1])))
        archive.writestr("E.npy", header((HUGE,)) + bytes(1000))
    before = tree(path.parent)
    done = run("convert", path, tmp_path / "out", memory=2**30)
    harmless(done, path.parent, before, tmp_path / "touched", str(path))


def test_npz_of_pickles(tmp_path, capsys):
    touched = tmp_path.parent / "touched by npz"
    path = tmp_path / "in" / "md17.npz"
    path.parent.mkdir()
    objects = np.array([Touch(touched)] * 4, dtype=object)
    np.savez(path, R=objects, z=np.array([8, 1, 1]), E=np.zeros(4))
    before = tree(path.parent)
    done = told(capsys, "convert", path, tmp_path / "out")
    harmless(done, path.parent, before, touched, str(path))


def test_json_that_grows(tmp_path):
    """A small file of one huge value; read in bounded memory, or refused."""
    path = tmp_path / "in" / "matbench_dielectric.json.gz"
    path.parent.mkdir()
    with gzip.open(path, "wt", compresslevel=1) as handle:
        handle.write('{"index": [0], "columns": ["structure", "n"], "data": [["')
        for _ in range(100):
            handle.write("x" * 2**20)
        handle.write('", 1.0]]}')
    before = tree(path.parent)
    done = run("convert", path, tmp_path / "out", memory=2**29)
    harmless(done, path.parent, before, tmp_path / "touched", str(path))


@pytest.fixture
def spice(tmp_path):
    """A SPICE file of two molecules, and another that is not to be read."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("spice.hdf5", "secret.hdf5"):
        with h5py.File(folder / name, "w") as handle:
            for number in range(2):
                group = handle.create_group(f"mol{number}")
                group["atomic_numbers"] = [8, 1, 1]
                group["conformations"] = np.array([[[0, 0, 0], [1.8, 0, 0], [-0.5, 1.7, 0.0]]])
                group["dft_total_energy"] = [-76.0]
    return folder / "spice.hdf5"


def link_out(handle, path):
    handle["mol1"]["conformations"] = h5py.ExternalLink(path.name, "/mol1/conformations")


def link_through(handle, path):
    handle["outside"] = h5py.ExternalLink(path.name, "/mol1")
    handle["mol1"]["conformations"] = h5py.SoftLink("/outside/conformations")


def keep_outside(handle, path):
    handle["mol1"].create_dataset(
        "conformations", (1, 3, 3), "f8", external=[(str(path), 0, h5py.h5f.UNLIMITED)]
    )


def view_outside(handle, path):
    layout = h5py.VirtualLayout((1, 3, 3), "f8")
    layout[:] = h5py.VirtualSource(str(path), "/mol1/conformations", (1, 3, 3))
    handle["mol1"].create_virtual_dataset("conformations", layout)


def claim_terabytes(handle, _):
    handle["mol1"].create_dataset("conformations", (HUGE // 10, 3, 3), "f8", chunks=(1000, 3, 3))


def link_group(handle, path):
    del handle["mol1"]
    handle["mol1"] = h5py.ExternalLink(path.name, "/mol1")


def loop(handle, _):
    handle["mol1"]["conformations"] = h5py.SoftLink("/mol1/conformations")


@pytest.mark.parametrize(
    "attack",
    [link_out, link_through, keep_outside, view_outside, claim_terabytes, link_group, loop],
)
def test_hdf5(spice, tmp_path, capsys, attack):
    with h5py.File(spice, "a") as handle:
        del handle["mol1"]["conformations"]
        attack(handle, spice.with_name("secret.hdf5"))
    before = tree(spice.parent)
    done = told(capsys, "convert", spice, tmp_path / "out", "--kind", "spice")
    harmless(done, spice.parent, before, tmp_path / "touched", str(spice))


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
    harmless(done, npy.parent, before, tmp_path / "touched", str(path))


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


def test_a_pickled_source(tmp_path, capsys):
    """What ase would unpickle by the name of a file."""
    touched = tmp_path.parent / "touched by a source"
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.pckl", "a.traj", "a.npz", "a.extxyz", "a.json", "a.db"):
        (folder / name).write_bytes(pickle.dumps(Touch(touched)))
        done = told(capsys, "convert", folder / name, tmp_path / "out", "--property", "gap=gap:eV")
        refused(done, name)
        assert not touched.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_names_in_a_source_stay_names(tmp_path, capsys):
    """A structure called ``../x`` is a row of that name."""
    source = write_molecules(tmp_path / "in.extxyz", 20)
    source.write_text(source.read_text().replace("gap=3 ", 'gap=3 id="../x" '))
    command = ("convert", source, tmp_path / "out", "--property", "gap=gap:eV", "--id-key", "id")
    done = told(capsys, *command)
    assert "Traceback" not in done.err
    assert {path.name for path in tmp_path.iterdir()} <= {"in.extxyz", "out"}
