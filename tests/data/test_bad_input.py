"""Broken and unsuitable files: one clear message, no traceback, nothing left behind."""

from __future__ import annotations

import gzip

import ase
import ase.io
import h5py
import numpy as np
import pytest

from deepmd_mft.cli import main
from tests.helpers.layouts import (
    QM9_CSV_HEADER,
    ase_row,
    matbench_structure,
    qm9_csv_row,
    write_aselmdb,
    write_matbench,
    write_qm9_tar,
)


def complaint(capsys, path, out, *options: str) -> str:
    """Run the conversion; it must fail with one message and leave nothing."""
    assert main(["convert", str(path), str(out), *options]) == 1
    assert not out.exists()
    assert not list(out.parent.glob(".*"))
    return capsys.readouterr().err


def cut(path, fraction=0.5):
    """Keep the first part of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * fraction)])


def test_truncated_qm9_tar(tmp_path, capsys):
    path = write_qm9_tar(tmp_path / "dsgdb9nsd.xyz.tar.bz2", range(300))
    cut(path)
    assert "ends or is damaged after" in complaint(capsys, path, tmp_path / "out")


def test_truncated_qm9_csv(tmp_path, capsys):
    path = tmp_path / "qm9_part1.csv"
    path.write_text(QM9_CSV_HEADER + qm9_csv_row(1) + qm9_csv_row(2))
    cut(path, 0.9)
    message = complaint(capsys, path, tmp_path / "out")
    assert f"{path}, line 3: not a complete molecule" in message


def test_truncated_matbench(tmp_path, capsys):
    rows = [[matbench_structure(5 + i / 100), 1.5] for i in range(50)]
    path = write_matbench(tmp_path / "matbench_dielectric.json.gz", rows)
    cut(path)
    message = complaint(capsys, path, tmp_path / "out")
    assert "fetch it again" in message
    path = write_matbench(tmp_path / "matbench_dielectric.json", rows)
    cut(path, 0.5)
    assert "damaged after 2" in complaint(capsys, path, tmp_path / "out")


def test_matbench_composition_task(tmp_path, capsys):
    path = write_matbench(tmp_path / "m.json", [["Al2O3", 1.0]], ("composition", "gap expt"))
    assert "cannot be converted" in complaint(capsys, path, tmp_path / "out")


def test_truncated_hdf5(tmp_path, capsys):
    path = tmp_path / "spice.hdf5"
    with h5py.File(path, "w") as handle:
        handle["x/conformations"] = np.zeros((100, 3, 3))
    cut(path)
    assert "cannot be opened as HDF5" in complaint(capsys, path, tmp_path / "out")


def test_other_hdf5(tmp_path, capsys):
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as handle:
        handle["x/y"] = np.zeros(3)
    assert "not laid out like SPICE" in complaint(capsys, path, tmp_path / "out")


def test_truncated_lmdb(tmp_path, capsys):
    path = write_aselmdb(tmp_path / "data.aselmdb", [ase_row()] * 300)
    cut(path)
    assert "bytes are there" in complaint(capsys, path, tmp_path / "out")
    path.write_bytes(path.read_bytes()[:3000])
    assert "cannot be opened as LMDB" in complaint(capsys, path, tmp_path / "out")
    broken = write_aselmdb(tmp_path / "b.aselmdb", [{"numbers": [1]}])
    assert "b.aselmdb:1: no 'positions'" in complaint(capsys, broken, tmp_path / "out")


def test_truncated_extxyz(tmp_path, capsys):
    path = tmp_path / "a.xyz"
    ase.io.write(path, [ase.Atoms("H2", [[0, 0, 0], [0, 0, 0.7]])] * 3, format="extxyz")
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    message = complaint(capsys, path, tmp_path / "out")
    assert "ase cannot read it after" in message
    zipped = tmp_path / "b.xyz.gz"
    zipped.write_bytes(gzip.compress(path.read_bytes())[:-20])
    assert "ase cannot read it after" in complaint(capsys, zipped, tmp_path / "out")


def test_unknown_file(tmp_path, capsys):
    path = tmp_path / "notes.txt"
    path.write_text("hello\n")
    assert "ase cannot read it" in complaint(capsys, path, tmp_path / "out")
    assert "does not exist" in complaint(capsys, tmp_path / "nothing.xyz", tmp_path / "out")


@pytest.fixture
def table(tmp_path):
    """A table of two rows and one structure file."""
    ase.io.write(tmp_path / "a.xyz", ase.Atoms("H2", [[0, 0, 0], [0, 0, 0.7]]))
    path = tmp_path / "table.csv"

    def write(text: str):
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,gap\na.xyz,1\nb.xyz,2\n", "row 2: structure file .*b.xyz does not exist"),
        ("id,file,gap\nx,a.xyz,1\nx,a.xyz,2\n", "rows 1 and 2 are both called 'x'"),
        ("file,gap\na.xyz,high\n", "gap = 'high' is not a number"),
        ("file,gap\na.xyz\n", "line 2: not as many fields as columns"),
        ("file,lumo\na.xyz,1\n", "no column 'gap'; there are file, lumo"),
        ("name,gap\na.xyz,1\n", "no column of structure files or SMILES"),
    ],
)
def test_tables(table, tmp_path, capsys, text, message):
    import re

    options = ["--property", "gap=gap:eV"]
    assert re.search(message, complaint(capsys, table(text), tmp_path / "out", *options))


def test_units(table, tmp_path, capsys):
    path = table("file,gap\na.xyz,1\n")
    message = complaint(capsys, path, tmp_path / "out", "--property", "gap")
    assert "gap=gap:UNIT" in message
    path = tmp_path / "a.xyz"
    message = complaint(capsys, path, tmp_path / "out", "--energy-unit", "erg")
    assert "unknown energy unit 'erg'; known are ev, mev, hartree" in message
    message = complaint(capsys, path, tmp_path / "out", "--force-unit", "hartree")
    assert "energy/length" in message


def test_missing_info(tmp_path, capsys):
    path = tmp_path / "a.xyz"
    ase.io.write(path, ase.Atoms("H2", [[0, 0, 0], [0, 0, 0.7]], info={"homo": -0.3}))
    message = complaint(capsys, path, tmp_path / "out", "--property", "gap=gap:eV")
    assert "a.xyz:0: no 'gap' in info; there is homo" in message
    message = complaint(capsys, path, tmp_path / "out", "--property", "my gap=gap:eV")
    assert "cannot be a property's name" in message


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.xyz", "2\n\nD 0 0 0\nO 0 0 1\n", "'D' is not an element symbol; write H for D"),
        ("a.xyz", "2\n\nO1 0 0 0\nH 0 0 1\n", "'O1' is not an element symbol"),
        (".DS_Store", "\0\0\0\1Bud1", "neither its name nor its content"),
        ("notes.txt", "hello\n", "neither its name nor its content"),
        ("a.xyz", "", "Empty file"),
        ("a.xyz", "2\n\nH 0 0 zero\nH 0 0 1\n", "could not convert string to float: 'zero'"),
        ("a.db", "not SQLite", "file is not a database"),
    ],
)
def test_the_real_reason_of_ase(tmp_path, capsys, name, text, reason):
    path = tmp_path / "in" / name
    path.parent.mkdir()
    path.write_text(text)
    message = complaint(capsys, path, tmp_path / "out")
    assert str(path) in message
    assert reason in message
    assert "truncated" not in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--type-map", "H,C,C,O"], "C is listed more than once"),
        (["--limit", "0"], "--limit 0: nothing would be converted"),
        (["--limit", "-1"], "--limit -1: nothing would be converted"),
    ],
)
def test_options_without_sense(tmp_path, capsys, options, message):
    table = tmp_path / "a.csv"
    table.write_text("smiles,gap\nCCO,1\n")
    out = tmp_path / "out"
    arguments = ["convert", str(table), str(out), "--property", "gap=gap:eV", *options]
    assert main(arguments) == 1
    assert message in capsys.readouterr().err
    assert not out.exists()
