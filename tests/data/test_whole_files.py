"""Nothing of a file is passed over: several molecules, blank lines, arrays, options."""

from __future__ import annotations

import ase
import ase.io
import numpy as np
import pytest

from deepmd_mft.cli import main
from deepmd_mft.data.readers import PropertySpec, ReadOptions, open_source
from deepmd_mft.errors import UserError
from deepmd_mft.structures.structure_set import StructureSet
from tests.helpers.conversion import CIF, FULL
from tests.helpers.layouts import ase_row, matbench_structure, write_aselmdb, write_matbench

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
        read(tmp_path, "qm9", properties=GAP, exclude=tmp_path / "list.txt")


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
