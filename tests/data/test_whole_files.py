"""Nothing of a file is passed over: several molecules, blank lines, arrays, options."""

from __future__ import annotations

import os

import ase
import ase.io
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator

from deepmd_mft.cli import main
from deepmd_mft.data.readers import PropertySpec, ReadOptions, open_source
from deepmd_mft.data.units import BOHR, HARTREE
from deepmd_mft.errors import UserError
from deepmd_mft.structures.structure_set import StructureSet
from tests.helpers.conversion import CIF, FULL, salt
from tests.helpers.layouts import (
    ase_row,
    matbench_structure,
    write_aselmdb,
    write_matbench,
    write_qm9_tar,
)

WATER = ase.Atoms("OH2", [[0, 0, 0], [0.76, 0.59, 0], [-0.76, 0.59, 0]])
ATOMS = "    0.0000    0.0000    {}.1000 N   0  0\n    0.0000    0.0000    {}.1000 H   0  0\n"
GAP = [PropertySpec("gap", "gap", "eV")]


def read(path, kind="auto", **options):
    """Every structure of a source."""
    return list(open_source(path, kind, ReadOptions(**options)).frames)


def sdf(n: int, *, charge: str = "", program: str = "     RDKit          3D") -> str:
    """One record of an SDF file, with a gap of ``n`` eV."""
    counts = "  2  0  0  0  0  0  0  0  0  0999 V2000"
    head = f"m{n}\n{program}\n\n{counts}\n{ATOMS.format(n, n + 1)}{charge}M  END\n"
    return f"{head}>  <gap>  (1)\n{n}.5\n\n> <empty>\n\n$$$$\n"


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_every_molecule_of_an_sdf_file(tmp_path, end):
    path = tmp_path / "a.sdf"
    ion = sdf(2, charge="M  CHG  2   1   2   2  -1\n")
    path.write_text(f"{sdf(1)}{ion}{sdf(3)}".replace("\n", end), newline="")
    found = read(path, properties=GAP)
    assert [one.labels["gap"].tolist() for one in found] == [[[1.5]], [[2.5]], [[3.5]]]
    assert [one.coords[0, 0, 2] for one in found] == [1.1, 2.1, 3.1]
    assert [one.charge for one in found] == [None, 1.0, None]


def test_a_table_names_an_sdf_file_of_several_molecules(tmp_path):
    (tmp_path / "a.sdf").write_text(sdf(1) + sdf(2))
    (tmp_path / "t.csv").write_text("file,gap\na.sdf,1\n")
    with pytest.raises(UserError, match="the file holds 2 structures"):
        read(tmp_path / "t.csv", properties=GAP)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (sdf(1) + sdf(2)[:110], "'m2' has no line M  END"),
        (sdf(1, program="     RDKit          2D"), "'m1' is a drawing in two dimensions"),
        (sdf(1).replace("V2000", "V3000"), "V3000"),
    ],
)
def test_sdf_files_that_are_no_geometries(tmp_path, text, reason):
    (tmp_path / "a.sdf").write_text(text)
    with pytest.raises(UserError, match=reason):
        read(tmp_path / "a.sdf")


def test_a_blank_line_is_not_the_end_of_an_xyz_file(tmp_path):
    one, path = "2\n\nH 0 0 0\nH 0 0 0.7\n", tmp_path / "a.xyz"
    path.write_text(f"{one}{one}\n  \n")
    assert len(read(path)) == 2
    for text in (f"{one}\n{one}", f"\n{one}"):
        path.write_text(text)
        with pytest.raises(UserError, match="there is more after a blank line"):
            read(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"z": [8, 1]}, r"R has shape \(2, 3, 3\), but .*z lists 2 atoms"),
        ({"z": [[8, 1], [8, 1]]}, "z lists 2 atoms"),
        ({"F": np.zeros((2, 4, 3))}, r"F has shape \(2, 4, 3\), but .*z lists 3 atoms"),
        ({"lattice": 9 * np.eye(3)}, "holds 'lattice', and npz archives are read as molecules"),
    ],
)
def test_arrays_of_an_npz_archive(tmp_path, change, message):
    whole = {"R": np.stack([WATER.positions] * 2), "z": WATER.numbers, "E": np.zeros(2)}
    np.savez(tmp_path / "a.npz", **(whole | change))
    with pytest.raises(UserError, match=message):
        read(tmp_path / "a.npz", energy_unit="eV")


def test_an_npz_archive_of_molecules_in_a_box(tmp_path):
    arrays = {"R": WATER.positions[None], "z": WATER.numbers, "cell": 30 * np.eye(3)}
    np.savez(tmp_path / "a.npz", **arrays)
    (one,) = read(tmp_path / "a.npz", energy_unit="eV", no_cell=True)
    assert one.cells is None


def test_options_that_a_source_does_not_take(tmp_path, capsys):
    ase.io.write(tmp_path / "a.xyz", WATER)
    np.savez(tmp_path / "a.npz", R=WATER.positions[None], z=WATER.numbers)
    write_matbench(tmp_path / "a.json", [[matbench_structure(4.0), 1.0]])
    (tmp_path / "a.csv").write_text("smiles,gap\nC,1\n")
    for name, option in (
        ("a.xyz", ["--length-unit", "bohr"]),
        ("a.xyz", ["--frame", "last"]),
        ("a.npz", ["--stress-unit", "GPa"]),
        ("a.npz", ["--group-key", "molecule"]),
        ("a.json", ["--no-cell"]),
        ("a.csv", ["--exclude", str(tmp_path / "a.csv")]),
    ):
        unit = ["--energy-unit", "eV"] if name == "a.npz" else []
        spec = ["--property", "n=n:1"] if name == "a.json" else []
        words = [str(tmp_path / name), str(tmp_path / "out"), *unit, *spec, *option]
        assert main(["convert", *words]) == 1
        assert f"{option[0]} means nothing to a source of kind" in capsys.readouterr().err


def test_properties_of_one_name_and_more_than_there_are(tmp_path):
    (tmp_path / "a.csv").write_text("smiles,pbe,hse\nC,1,2\n")
    twice = [PropertySpec("gap", key, "eV") for key in ("pbe", "hse")]
    with pytest.raises(UserError, match="gap: two properties are called so"):
        read(tmp_path / "a.csv", properties=twice)
    write_matbench(tmp_path / "a.json", [[matbench_structure(4.0), 1.0]])
    two = [PropertySpec("n", "n", "1"), *GAP]
    with pytest.raises(UserError, match="there is one target, 'n'"):
        read(tmp_path / "a.json", properties=two)


def test_a_list_of_molecules_to_leave_out_that_is_none(tmp_path):
    (tmp_path / "qm9_part1.csv").write_text("Index,SMILES,Elements,XYZ_Ang,HOMO_LUMO_gap_au\n")
    (tmp_path / "list.txt").write_text("gdb_21\ngdb_22\n")
    with pytest.raises(UserError, match="no line begins with the number of a molecule"):
        read(tmp_path, "qm9", exclude=tmp_path / "list.txt")


def test_names_in_ase_lmdb_are_unique(tmp_path):
    path = write_aselmdb(tmp_path / "a.aselmdb", [ase_row(), ase_row(0.1)])
    with pytest.raises(UserError, match=r"the name '7' was already used by a\.aselmdb:1"):
        read(path, id_key="sid")


def test_partly_occupied_sites_are_not_predicted(tmp_path):
    path = tmp_path / "a.cif"
    path.write_text(CIF.format(name="a", sites=FULL.format(0.5)))
    with pytest.raises(UserError, match="partial occupation"):
        StructureSet("a", [path])
    path.write_text(CIF.format(name="a", sites=FULL.format(0.9999)))
    assert len(StructureSet("a", [path])) == 1


@pytest.mark.parametrize(("key", "unit"), [("gap", "eV"), ("energy", "eV")])
def test_a_unit_that_is_not_the_sources(tmp_path, key, unit):
    path = write_qm9_tar(tmp_path / "dsgdb9nsd.xyz.tar.bz2", (1,))
    name = {"energy": "u0"}.get(key, key)
    with pytest.raises(UserError, match=f"{name} is in Hartree in this source and stays so"):
        read(path, properties=[PropertySpec(key, name, unit)])
    for same in ("", "hartree"):
        (one,) = read(path, properties=[PropertySpec("gap", "gap", same)])
        assert one.labels["gap"].tolist() == [[0.5048]]
    write_matbench(tmp_path / "a.json", [[matbench_structure(4.0), 1.0]], ("structure", "gap pbe"))
    with pytest.raises(UserError, match="gap pbe is in eV in this source"):
        read(tmp_path / "a.json", properties=[PropertySpec("gap", "gap pbe", "meV")])


def test_numbers_of_a_structure_that_are_not_taken_are_named(tmp_path):
    path = tmp_path / "a.extxyz"
    head = 'Energy=-1.5 gap=2.5 n=3 virial="1 2 3 4 5 6 7 8 9" Properties=species:S:1:pos:R:3'
    path.write_text(f"1\n{head}:force:R:3\nH 0 0 0 1 2 3\n" * 2)
    source = open_source(path, options=ReadOptions(properties=GAP))
    assert len(list(source.frames)) == 2
    assert source.notes[-1] == "not taken: Energy (info), virial (info), force (arrays)"
    source = open_source(path, options=ReadOptions(energy_key="Energy", force_key="force"))
    assert next(source.frames).labels["force"].tolist() == [[[1.0, 2.0, 3.0]]]
    assert source.notes[-1] == "not taken: gap (info), virial (info)"


def test_nothing_in_a_column_of_a_parquet_file_is_no_group(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    nothing = float("nan")
    content = {"smiles": ["C", "CC", "CCC"], "gap": [1.0, 2.0, 3.0], "m": [1.0, nothing, nothing]}
    parquet.write_table(pa.table(content), tmp_path / "a.parquet")
    found = read(tmp_path / "a.parquet", properties=GAP, group_key="m")
    assert [one.group for one in found] == ["1.0", "", ""]


def test_infinite_targets_are_never_kept(tmp_path, capsys):
    path = tmp_path / "a.csv"
    path.write_text("smiles,gap\nC,1\nCC,\nCCC,inf\n")
    words = [str(path), str(tmp_path / "out"), "--property", "gap=gap:eV", "--keep-nan"]
    assert main(["convert", *words, "--jobs", "1"]) == 0
    assert "1: gap is NaN or infinite (a.csv:3)" in capsys.readouterr().out
    assert len(StructureSet("a", [tmp_path / "out"])) == 2


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("forces", ("out", "out.lmdb")),
        ("energies", ("out", "out.lmdb")),
        ("real_atom_types", ("out", "out.lmdb")),
        ("find_gap", ("out", "out.lmdb")),
        ("atomic_volume", ("out.lmdb",)),
    ],
)
def test_names_that_mean_something_else_in_the_files(tmp_path, capsys, name, kinds):
    path = tmp_path / "a.csv"
    path.write_text("smiles,x\nC,1\n")
    for kind in ("out", "out.lmdb"):
        words = [str(path), str(tmp_path / kind), "--property", f"{name}=x:1", "--jobs", "1"]
        assert main(["convert", *words]) == (kind in kinds)
        assert (f"cannot be called {name!r}" in capsys.readouterr().err) == (kind in kinds)


def test_a_name_that_is_not_utf8(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    ase.io.write(tmp_path / "a.xyz", WATER)
    (tmp_path / "a.xyz").rename(tmp_path / "in" / os.fsdecode(b"w\xe4rme.xyz"))
    assert main(["convert", str(tmp_path / "in"), str(tmp_path / "out")]) == 1
    assert "rme.xyz:0' (or its group '') has a name that is not UTF-8" in capsys.readouterr().err


def test_units_of_files_that_ase_converts(tmp_path):
    atoms = salt()
    forces = [[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]]
    atoms.calc = SinglePointCalculator(atoms, forces=forces)
    for name in ("a.xsf", "a.extxyz"):
        ase.io.write(tmp_path / name, atoms)
    (one,) = read(tmp_path / "a.xsf")  # Hartree/A in the file
    np.testing.assert_allclose(one.labels["force"], [forces], atol=1e-9)
    for option, unit in (("energy_unit", "Ha"), ("force_unit", "Ha/bohr"), ("stress_unit", "GPa")):
        with pytest.raises(UserError, match="ase converts the numbers of xsf files to eV"):
            read(tmp_path / "a.xsf", **{option: unit})
    (one,) = read(tmp_path / "a.extxyz", force_unit="hartree/bohr")
    np.testing.assert_allclose(one.labels["force"], HARTREE / BOHR * np.array([forces]))


def test_a_cutoff_that_is_none(tmp_path, capsys):
    ase.io.write(tmp_path / "a.xyz", WATER)
    assert main(["convert", str(tmp_path / "a.xyz"), str(tmp_path / "out"), "--rcut", "-1"]) == 1
    assert "--rcut -1: a cutoff above 0" in capsys.readouterr().err
