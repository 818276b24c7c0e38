"""Tables as people write them: encodings, cells, structures, names, CGCNN's layout."""

from __future__ import annotations

import csv
import gzip
import io
import json

import ase
import ase.io
import numpy as np
import pytest

from deepmd_mft.cli import main
from deepmd_mft.structures.structure_set import StructureSet
from tests.helpers.conversion import CIF, FULL, convert, salt

GAP = ("--property", "gap=gap:eV")


def complaint(capsys, path, out, *options: str) -> str:
    """The one message of a conversion that must fail; nothing is left behind."""
    assert main(["convert", str(path), str(out), *options]) == 1
    assert not out.exists()
    return capsys.readouterr().err


@pytest.fixture
def folder(tmp_path):
    """A folder with one structure file."""
    ase.io.write(tmp_path / "a.xyz", ase.Atoms("H2", [[0, 0, 0], [0, 0, 0.74]]))
    return tmp_path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-bom"])
@pytest.mark.parametrize("zipped", [False, True])
def test_encodings(folder, encoding, zipped):
    text = "id,file,gap\n\u00e9t\u00e9,a.xyz,1.5\n"
    if encoding == "utf-16-le-bom":
        content = b"\xff\xfe" + text.encode("utf-16-le")
    else:
        content = text.encode(encoding)
    path = folder / ("t.csv.gz" if zipped else "t.csv")
    path.write_bytes(gzip.compress(content, mtime=0) if zipped else content)
    convert(path, folder / "set", *GAP)
    assert StructureSet.open(folder / "set").rows.ids == ["\u00e9t\u00e9"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "file,gap\n\u00e9.xyz,1\n".encode("latin-1"), "not UTF-8.*iconv -f latin1"),
        ("t.csv", "file,gap\na.xyz,1\n".encode("utf-16-le"), "not UTF-8.*NUL"),
        ("t.csv", bytes(range(256)) * 10, "not UTF-8"),
        ("t.csv.gz", b"file,gap\na.xyz,1\n", "truncated or damaged.*[Nn]ot a gzipped file"),
        (
            "t.csv.gz",
            gzip.compress(b"file,gap\n" + b"a.xyz,1\n" * 9, mtime=0)[:-12],
            "truncated or damaged",
        ),
        ("t.csv", b'file,gap\na.xyz,"1\n' + b"a.xyz,1\n" * 2**22, "quotation mark not closed"),
        ("t.csv", b"", "no column 'gap'"),
        ("t.csv", b"file,gap,gap\na.xyz,1,2\n", "two columns are called 'gap'"),
        ("t.csv", b"file, gap ,gap\na.xyz,1,2\n", "two columns are called 'gap'"),
        ("t.csv", b"file,gap\na.xyz,1_000\n", "row 1: gap = '1_000' is not a number"),
        ("t.csv", b"file,gap\na.xyz,1,2\n", "line 2: not as many fields as columns"),
        ("t.csv", b"file,gap\n" + b"x" * 5000 + b",1\n", "row 1: .*cannot be a file's name"),
        ("t.csv", b"file,gap\na\x00b,1\n", "not UTF-8.*NUL"),
        ("t.csv", b'file,gap\n"2\n\nH 0 0 0\nH 0 0 1",1\n', "row 1: the cell holds text .*neither"),
        ("t.csv", b"id,file,gap\n,a.xyz,1\n", "row 1: no name in column 'id'"),
        ("t.parquet", b"PAR1 and no more", "not a complete Parquet file"),
    ],
)
def test_what_is_no_table(folder, capsys, name, content, message):
    import re

    path = folder / name
    path.write_bytes(content)
    error = complaint(capsys, path, folder / "set", *GAP)
    assert str(path) in error
    assert re.search(message, error), error


def test_lines_of_commas_alone_are_no_rows(folder):
    path = folder / "t.csv"
    path.write_text("file,gap,,\na.xyz,1,,\n,,,\n\na.xyz,2,,\n,,,\n,,,\n")
    convert(path, folder / "set", *GAP)
    assert StructureSet.open(folder / "set").label("gap").tolist() == [1.0, 2.0]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_true_and_false_are_one_and_nought_in_every_table(folder, kind):
    path = folder / f"t.{kind}"
    if kind == "csv":
        path.write_text("file,metal\na.xyz,True\na.xyz,false\na.xyz,\n")
    else:
        pa = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        table = pa.table({"file": ["a.xyz"] * 3, "metal": [True, False, None]})
        parquet.write_table(table, path)
    convert(path, folder / "set", "--property", "metal=metal:class", "--keep-nan")
    values = np.load(folder / "set" / "2" / "set.000" / "metal.npy")[:, 0]
    np.testing.assert_array_equal(values, [1.0, 0.0, np.nan])


def test_doubled_columns_of_parquet(folder, capsys):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = [pa.array(["a.xyz"]), pa.array([1.0]), pa.array([2.0])]
    parquet.write_table(pa.table(columns, names=["file", "gap", "gap"]), folder / "t.parquet")
    assert "two columns are called 'gap'" in complaint(
        capsys, folder / "t.parquet", folder / "set", *GAP
    )


def test_a_column_of_cif_contents(tmp_path):
    long = FULL.format(1) + "\n# " + "comment " * 20_000  # more than the 131,072 of csv
    path = tmp_path / "t.csv"
    with path.open("w", newline="") as handle:
        table = csv.writer(handle)
        table.writerows([["id", "cif", "gap"], ["x", CIF.format(name="x", sites=long), "8.5"]])
    assert path.stat().st_size > 150_000
    convert(path, tmp_path / "set", *GAP)
    ((numbers, coords, cell),) = StructureSet.open(tmp_path / "set")
    assert numbers.tolist() == [11, 17]
    np.testing.assert_allclose(coords, [[0, 0, 0], [2.8, 2.8, 2.8]])
    np.testing.assert_allclose(cell, 5.6 * np.eye(3), atol=1e-12)
    path.write_text('cif,gap\n"data_x\n_cell_length_a 5\nloop_\n_atom_site_label\nO1\'",1\n')
    assert main(["convert", str(path), str(tmp_path / "other"), *GAP]) == 1


def test_files_of_several_structures(folder, capsys):
    path = folder / "t.csv"
    path.write_text("id,file,gap\nrelaxation,r.xyz,1\n")
    steps = [ase.Atoms("H2", [[0, 0, 0], [0, 0, d]]) for d in (0.9, 0.8, 0.74)]
    ase.io.write(folder / "r.xyz", steps)
    message = complaint(capsys, path, folder / "set", *GAP)
    assert "row 1: the file holds 3 structures" in message
    assert "--frame first or --frame last" in message
    for frame, distance in (("first", 0.9), ("last", 0.74)):
        convert(path, folder / frame, *GAP, "--frame", frame)
        ((_, coords, _),) = StructureSet.open(folder / frame)
        assert coords[1, 2] == pytest.approx(distance)


def test_rows_without_a_structure_are_skipped_by_name(folder):
    (folder / "empty.cif").write_text("data_global\n_journal_year 1999\n")
    path = folder / "t.csv"
    path.write_text("id,file,gap\ngood,a.xyz,1\nnone,,1\nempty,empty.cif,2\n")
    summary = convert(path, folder / "set", *GAP)
    assert summary["skipped"]["no structure in the row"]["examples"] == ["none"]
    assert summary["skipped"]["the file holds no structure"]["examples"] == ["empty"]


def test_errors_of_structure_files_name_the_row(folder, capsys):
    path = folder / "t.csv"
    path.write_text("file,gap\na.xyz,1\nbad.xyz,2\n")
    (folder / "bad.xyz").write_text("2\n\nH 0 0 0\nO1 0 0 1\n")
    message = complaint(capsys, path, folder / "set", *GAP)
    assert "t.csv, row 2: " in message
    assert "'O1' is not an element symbol" in message


def test_structures_without_a_label(folder, capsys):
    pytest.importorskip("rdkit")
    path = folder / "t.csv"
    path.write_text("id,smiles\nx,CCO\ny,O\n")
    convert(path, folder / "set")
    assert "for prediction only" in capsys.readouterr().out
    rows = list(csv.DictReader(io.StringIO((folder / "set" / "rows.csv").read_text())))
    assert [(row["id"], row["smiles"]) for row in rows] == [("x", "CCO"), ("y", "O")]
    record = json.loads((folder / "set" / "dataset.json").read_text())
    assert record["units"] == {}
    names = sorted(path.name for path in (folder / "set" / "9" / "set.000").iterdir())
    assert names == ["coord.npy", "real_atom_types.npy"]


def test_an_energy_of_a_table_is_converted(folder):
    path = folder / "t.csv"
    path.write_text("file,E\na.xyz,-1.5\n")
    convert(path, folder / "set", "--property", "energy=E:hartree")
    assert json.loads((folder / "set" / "dataset.json").read_text())["units"] == {"energy": "eV"}
    energy = np.load(folder / "set" / "2" / "set.000" / "energy.npy")
    np.testing.assert_allclose(energy.reshape(-1), [-1.5 * 27.211386], rtol=1e-7)


@pytest.fixture
def cgcnn(tmp_path):
    """A folder in CGCNN's layout, without its table."""
    for name, a in (("mp-1", 2.8), ("mp-1.5", 2.9)):
        atoms = salt()
        atoms.set_cell(a * (1 - np.eye(3)), scale_atoms=True)
        ase.io.write(tmp_path / f"{name}.cif", atoms)
    (tmp_path / "atom_init.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize("table", ["id_prop.csv", "targets.csv"])
@pytest.mark.parametrize("given", ["folder", "table"])
def test_cgcnn_layout(cgcnn, table, given):
    path = cgcnn / table
    path.write_text("mp-1.5,2.5,7\nmp-1,1.5,8\n")
    out = cgcnn.parent / f"{cgcnn.name}_set"
    source = cgcnn if given == "folder" else path
    convert(source, out, "--property", "gap=1:eV", "--property", "k=2:GPa")
    data = StructureSet.open(out)
    assert data.rows.ids == ["mp-1.5", "mp-1"]
    assert data.label("gap").tolist() == [2.5, 1.5]
    assert data.label("k").tolist() == [7.0, 8.0]
    volumes = [abs(np.linalg.det(cell)) for _, _, cell in data]
    np.testing.assert_allclose(volumes, [2 * 2.9**3, 2 * 2.8**3], rtol=1e-6)


def test_cgcnn_with_a_header_or_files_in_a_folder(cgcnn):
    (cgcnn / "structures").mkdir()
    for file in list(cgcnn.glob("*.cif")):
        file.rename(cgcnn / "structures" / file.name)
    (cgcnn / "targets.csv").write_text("material_id,band_gap\nmp-1,1.5\n")
    out = cgcnn.parent / f"{cgcnn.name}_set"
    convert(cgcnn, out, "--property", "gap=band_gap:eV")
    assert StructureSet.open(out).label("gap").tolist() == [1.5]


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ("mp-1,1.5\n", "gap", "no column 'gap'; there are 1 .*--property gap=1:eV"),
        ("mp-1,1.5\nmp-2,1\n", "1", "line 2: expected one structure file called 'mp-2', found no"),
        ("mp-1,1.5\nmp-1,1\n", "1", "lines 1 and 2 are both called 'mp-1'"),
        ("mp-1,1.5\nmp-1.5\n", "1", "line 2: 1 fields, expected 2"),
        ("mp-1,1.5\nmp-1.5,low\n", "1", "line 2: 1 = 'low' is not a number"),
    ],
)
def test_what_is_wrong_in_a_cgcnn_table(cgcnn, capsys, text, key, message):
    import re

    (cgcnn / "id_prop.csv").write_text(text)
    out = cgcnn.parent / f"{cgcnn.name}_set"
    error = complaint(capsys, cgcnn, out, "--property", f"gap={key}:eV")
    assert re.search(message, error), error
