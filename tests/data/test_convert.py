"""Writers: what deepmd-kit and dpdata read back, and what happens when writing fails."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
from pathlib import Path

import dpdata
import lmdb
import numpy as np
import pytest
from deepmd.dpmodel.utils.lmdb_data import LmdbDataReader
from deepmd.utils.data import DeepmdData

from deepmd_mft.cli import main
from deepmd_mft.data.convert import convert
from deepmd_mft.data.frames import Skipped
from deepmd_mft.data.writers import npy
from deepmd_mft.errors import UserError
from deepmd_mft.structures.structure_set import StructureSet
from tests.helpers.frames import crystal, molecule, source


@pytest.mark.parametrize("name", ["set", "set.lmdb"])
def test_round_trip(tmp_path, name, monkeypatch):
    monkeypatch.setattr(npy, "_BUFFER", 1000)  # many small writes
    frames = [molecule(3, 5, gap=1.0), molecule(4, 2, gap=2.0), molecule(3, 4, "k", gap=3.0)]
    out = tmp_path / name
    summary = convert(source(*frames), out, progress=False)
    assert summary.structures == 11
    data = StructureSet.open(out)
    assert data.rows.ids == [name for f in frames for name in f.ids]
    np.testing.assert_array_equal(data.label("gap"), [1.0] * 5 + [2.0] * 2 + [3.0] * 4)
    np.testing.assert_array_equal(
        data.label("energy"), np.concatenate([f.labels["energy"] for f in frames])
    )
    coords = [c for f in frames for c in f.coords]
    for (numbers, positions, cell), expected in zip(data, coords, strict=True):
        np.testing.assert_array_equal(positions, expected)
        assert cell is None
        assert numbers[-1] == 1


def test_deepmd_and_dpdata_read_npy(tmp_path):
    frames = [crystal(5.6), molecule(3, 2), crystal(5.8)]
    out = tmp_path / "set"
    convert(source(*frames), out, progress=False)
    assert sorted(p.name for p in out.iterdir()) == ["2", "3", "dataset.json", "rows.csv"]
    assert (out / "3" / "nopbc").is_file()
    system = DeepmdData(str(out / "2"), type_map=["Cl", "H", "C", "Na"])
    system.add("energy", 1, must=True, high_prec=True).add("force", 3, atomic=True, must=True)
    system.add("virial", 9, must=True)
    batch = system.get_batch(2)
    assert batch["type"].tolist() == [[3, 0], [3, 0]]
    by_energy = np.argsort(-batch["energy"][:, 0])
    np.testing.assert_array_equal(batch["energy"][by_energy, 0], [-5.6, -5.8])
    np.testing.assert_array_equal(batch["virial"][by_energy][0], 5.6 * np.eye(3).reshape(-1))
    systems = dpdata.MultiSystems()
    systems.load_systems_from_file(str(out), fmt="deepmd/npy/mixed")
    assert systems.get_nframes() == 4
    read = next(s for s in systems if s.get_natoms() == 3)
    np.testing.assert_allclose(
        read["forces"], frames[1].labels["force"], err_msg="dpdata reads the forces"
    )


def test_deepmd_and_dpdata_read_lmdb(tmp_path):
    frames = [molecule(3, 2, gap=0.5), molecule(5, 1, gap=0.7)]
    out = tmp_path / "set.lmdb"
    convert(source(*frames), out, type_map=["H", "C"], progress=False)
    reader = LmdbDataReader(str(out), ["C", "H"])
    assert len(reader) == 3
    frame = reader[2]
    assert frame["atype"].tolist() == [0, 0, 0, 0, 1]
    np.testing.assert_array_equal(frame["force"], frames[1].labels["force"][0])
    assert frame["gap"].tolist() == [0.7]
    reader.close()
    systems = dpdata.MultiSystems().from_file(str(out), fmt="deepmd/lmdb")
    assert systems.get_nframes() == 3


def test_other_labels_go_to_another_system(tmp_path):
    plain = molecule(3)
    del plain.labels["force"]
    convert(source(molecule(3), plain, molecule(3)), tmp_path / "set", progress=False)
    data = StructureSet.open(tmp_path / "set")
    assert data.rows.systems == ["3", "3-2", "3"]
    assert not list((tmp_path / "set" / "3-2").rglob("force.npy"))


def test_mixed_periodicity(tmp_path):
    mixed = [crystal(5.6), molecule(2)]
    convert(source(*mixed), tmp_path / "set", progress=False)
    assert (tmp_path / "set" / "2-2" / "nopbc").is_file()
    with pytest.raises(UserError, match=r"cannot share an LMDB.*--only periodic"):
        convert(source(*mixed), tmp_path / "set.lmdb", progress=False)
    assert not (tmp_path / "set.lmdb").exists()
    summary = convert(source(*mixed), tmp_path / "a.lmdb", only="molecular", progress=False)
    assert summary.structures == 1


def test_bad_structures_are_skipped_with_the_reason(tmp_path):
    touching, flat, nan, inf = molecule(4), crystal(5.6, "flat"), molecule(5, gap=1.0), molecule(6)
    touching.coords[0, 1] = touching.coords[0, 0] + 0.1
    wrapped = crystal(5.7, "wrapped")
    wrapped.coords[0, 1] = wrapped.cells[0].sum(axis=0) + 0.01
    flat.cells[0, 2] = flat.cells[0, 1]
    nan.labels["gap"][:] = np.nan
    inf.coords[0, 0, 0] = np.inf
    bad = [touching, wrapped, flat, nan, inf, Skipped("x", "no geometry")]
    summary = convert(source(molecule(3, gap=2.0), *bad), tmp_path / "set", progress=False)
    text = summary.text()
    assert "2: two atoms are closer than 0.3 A (m4:0, wrapped5.7)" in text
    assert "1: the cell has no volume (flat5.6)" in text
    assert "1: gap is NaN or infinite (m5:0)" in text
    assert "1: coordinates are not finite (m6:0)" in text
    assert "1: no geometry (x)" in text
    data = StructureSet.open(tmp_path / "set")
    assert data.rows.source_rows.tolist() == [0]
    with pytest.raises(UserError, match="m4:0: two atoms are closer"):
        convert(source(*bad), tmp_path / "s2", strict=True, progress=False)
    with pytest.raises(UserError, match="no structure was left"):
        convert(source(*bad), tmp_path / "s3", progress=False)


def test_keep_nan(tmp_path):
    nan = molecule(5, gap=np.nan)
    assert convert(source(nan), tmp_path / "set", keep_nan=True, progress=False).structures == 1
    with pytest.raises(UserError, match="gap is missing or NaN in 1 of"):
        StructureSet.open(tmp_path / "set").label("gap")


def test_reserved_names_and_type_map(tmp_path):
    with pytest.raises(UserError, match="cannot be called 'dipole'"):
        convert(source(molecule(3, dipole=1.0)), tmp_path / "set", progress=False)
    with pytest.raises(UserError, match="H is not in the type map C O"):
        convert(source(molecule(3)), tmp_path / "set", type_map=["C", "O"], progress=False)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_unasked(tmp_path):
    out = tmp_path / "set"
    convert(source(molecule(3)), out, progress=False)
    with pytest.raises(UserError, match="exists; choose another name or give --overwrite"):
        convert(source(molecule(4)), out, progress=False)
    touching = molecule(4)
    touching.coords[:] = 0.0
    with pytest.raises(UserError, match="closer"):
        convert(source(touching), out, strict=True, overwrite=True, progress=False)
    assert (out / "3").is_dir(), "a failed conversion leaves the old set"
    convert(source(molecule(4)), out, overwrite=True, progress=False)
    assert sorted(p.name for p in out.iterdir()) == ["4", "dataset.json", "rows.csv"]
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "disk is full"),
        (OSError("125550 requested and 78320 written"), "disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "coord.npy"), "no permission"),
    ],
)
def test_disk_full_and_no_permission(tmp_path, monkeypatch, error, expected):
    def fail(*args):
        raise error

    monkeypatch.setattr(npy, "_append", fail)
    with pytest.raises(UserError, match=expected):
        convert(source(molecule(3)), tmp_path / "set", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="no permission to write"):
        convert(source(molecule(3)), tmp_path / "file" / "set", progress=False)


def test_lmdb_disk_full(tmp_path, monkeypatch):
    def fail(*args):
        raise lmdb.MapFullError("full")

    monkeypatch.setattr("deepmd_mft.data.writers.lmdb.metadata", fail)
    with pytest.raises(UserError, match="disk is full"):
        convert(source(molecule(3)), tmp_path / "set.lmdb", progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_conversion_cannot_be_trained_on(tmp_path, how):
    code = f"""
import signal, sys
# a shell's background job ignores SIGINT, and so would its children
signal.signal(signal.SIGINT, signal.default_int_handler)
from tests.helpers.frames import molecule, source
from pathlib import Path
from deepmd_mft.data.convert import convert
from deepmd_mft.data.writers import npy
npy._BUFFER = 0
def endless():
    while True:
        yield molecule(3)
s = source(); s.frames = endless()
print("ready", flush=True)
convert(s, Path({str(tmp_path / "set")!r}), progress=False)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parents[2],
    )
    process.stdout.readline()
    while not list(tmp_path.rglob("coord.npy")):
        assert process.poll() is None
    process.send_signal(how)
    process.wait(timeout=60)
    assert not (tmp_path / "set").exists()
    assert not list(tmp_path.rglob("type.raw"))
    assert bool(list(tmp_path.glob(".set.*.partial"))) == (how == signal.SIGKILL)
    convert(source(molecule(3)), tmp_path / "set", progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


def test_cli_summary_and_record(tmp_path, capsys):
    path = tmp_path / "a.extxyz"
    path.write_text(
        '2\nLattice="5 0 0 0 5 0 0 0 5" Properties=species:S:1:pos:R:3 energy=-1.5 gap=2.5\n'
        "H 0 0 0\nH 0 0 0.74\n"
    )
    out = tmp_path / "set"
    assert main(["convert", str(path), str(out), "--property", "gap=gap:eV"]) == 0
    printed = capsys.readouterr().out
    assert "structures  1 (1 periodic)" in printed
    assert "gap         2.5 to 2.5, mean 2.5 eV" in printed
    record = json.loads((out / "dataset.json").read_text())
    assert record["units"] == {"energy": "eV", "gap": "eV"}
    assert record["files"][0]["sha256"]
    assert main(["convert", str(path), str(out)]) == 1
    assert "--overwrite" in capsys.readouterr().err
