"""Sources and split files that lie, are cut off, or would run something."""

from __future__ import annotations

import gzip
import json
import pickle
import zipfile

import h5py
import numpy as np
import pytest

from tests.helpers.attacks import (
    HUGE,
    Touch,
    harmless,
    header,
    refused,
    run,
    saved,
    told,
    write_molecules,
)
from tests.helpers.trees import tree


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


def test_json_that_grows(tmp_path, capsys, monkeypatch):
    """A small file of one huge value is refused before it is in memory."""
    monkeypatch.setattr("deepmd_mft.data.readers.matbench._LARGEST_ROW", 2**21)
    path = tmp_path / "in" / "matbench_dielectric.json.gz"
    path.parent.mkdir()
    with gzip.open(path, "wt", compresslevel=1) as handle:
        handle.write('{"index": [0], "columns": ["structure", "n"], "data": [["')
        for _ in range(100):
            handle.write("x" * 2**20)
        handle.write('", 1.0]]}')
    assert path.stat().st_size < 2**20
    before = tree(path.parent)
    done = told(capsys, "convert", path, tmp_path / "out")
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
