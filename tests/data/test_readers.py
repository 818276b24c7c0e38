"""Every reader on a file of its layout: units, names, what is skipped."""

from __future__ import annotations

import ase
import ase.db
import ase.io
import h5py
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator

from deepmd_mft.data.frames import Frames, Skipped
from deepmd_mft.data.readers import PropertySpec, ReadOptions, guess, open_source
from deepmd_mft.data.units import BOHR, HARTREE
from deepmd_mft.errors import UserError
from tests.helpers.layouts import (
    QM9_CSV_HEADER,
    ase_row,
    matbench_structure,
    qm9_csv_row,
    write_aselmdb,
    write_matbench,
    write_qm9_tar,
)


def read(path, kind="auto", **options):
    """All frames of a source in one list, and the source."""
    source = open_source(path, kind, ReadOptions(**options))
    return list(source.frames), source


def test_qm9_tar(tmp_path):
    path = write_qm9_tar(tmp_path / "dsgdb9nsd.xyz.tar.bz2", (1, 2))
    (tmp_path / "uncharacterized.txt").write_text("3,054 molecules\n-----\n    2  CC  N  1\n")
    frames, source = read(path, exclude=tmp_path / "uncharacterized.txt")
    assert isinstance(frames[1], Skipped)
    assert frames[1].id == "gdb_2"
    methane = frames[0]
    assert methane.numbers.tolist() == [6, 1, 1, 1, 1]
    assert methane.coords[0, 1, 2] == 1.9761204e-3
    assert methane.smiles == "C"
    assert methane.labels["gap"].tolist() == [[0.5048]]
    assert methane.labels["cv"].tolist() == [[6.469]]
    assert source.units["alpha"] == "a0^3"


def test_qm9_csv(tmp_path):
    path = tmp_path / "qm9_part1.csv"
    path.write_text(QM9_CSV_HEADER + qm9_csv_row(2) + qm9_csv_row(7))
    frames, source = read(tmp_path, properties=[PropertySpec("gap", "gap")])
    assert [f.ids for f in frames] == [["gdb_2"], ["gdb_7"]]
    assert source.total == 2
    assert frames[0].labels == {"gap": np.array([[0.3399]])}
    assert frames[0].coords[0, 2, 2] == -0.0287577581
    assert frames[0].smiles == "N2"


def test_matbench(tmp_path):
    rows = [
        [matbench_structure(5.6), 1.7],
        [matbench_structure(5.7, occupation=0.5), 1.8],
        [matbench_structure(5.8, "K"), None],
    ]
    path = write_matbench(tmp_path / "matbench_dielectric.json.gz", rows)
    frames, source = read(path)
    assert source.units == {"n": "1"}
    assert frames[0].ids == ["mb-dielectric-1"]
    assert frames[0].cells.shape == (1, 3, 3)
    assert frames[1].occupancy == 0.5
    assert np.isnan(frames[2].labels["n"]).all()


def test_matbench_names_and_units(tmp_path):
    columns = ("structure", "log10(G_VRH)")
    rows = [[matbench_structure(5.6), 1.7]]
    _, source = read(write_matbench(tmp_path / "matbench_log_gvrh.json", rows, columns))
    assert source.units == {"log_gvrh": "log10(GPa)"}
    path = write_matbench(tmp_path / "mine.json", rows, ("structure", "e_form"))
    with pytest.raises(UserError, match="unit of 'e_form' is unknown"):
        read(path)
    _, source = read(path, properties=[PropertySpec("ef", "e_form", "eV/atom")])
    assert source.units == {"ef": "eV/atom"}


def test_spice(tmp_path):
    path = tmp_path / "spice.hdf5"
    with h5py.File(path, "w") as handle:
        group = handle.create_group("water")
        group["atomic_numbers"] = np.array([8, 1, 1], dtype=np.int16)
        group["conformations"] = np.array([[[0, 0, 0], [1.8, 0, 0], [0, 1.8, 0]]] * 2, np.float32)
        group["dft_total_energy"] = np.array([-76.4, np.nan])
        group["dft_total_gradient"] = np.full((2, 3, 3), 0.01, np.float32)
        group["smiles"] = [b"[H:2][O:1][H:3]"]
        group["subset"] = [b"SPICE Water"]
    (water,), _ = read(path)
    assert guess(path) == "spice"
    np.testing.assert_allclose(water.coords[0, 1, 0], 1.8 * BOHR, rtol=1e-7)
    np.testing.assert_allclose(water.labels["energy"][0], -76.4 * HARTREE)
    np.testing.assert_allclose(water.labels["force"][0, 0, 0], -0.01 * HARTREE / BOHR, rtol=1e-7)
    assert water.ids == ["water/0", "water/1"]
    assert water.smiles == "[H:2][O:1][H:3]"


def test_ani1x(tmp_path):
    path = tmp_path / "ani1x.h5"
    with h5py.File(path, "w") as handle:
        group = handle.create_group("C1H4")
        group["atomic_numbers"] = np.array([6, 1, 1, 1, 1], dtype=np.uint8)
        group["coordinates"] = np.random.default_rng(0).normal(size=(3, 5, 3))
        group["wb97x_dz.energy"] = np.full(3, -40.5)
        group["wb97x_dz.forces"] = np.full((3, 5, 3), 0.1)
        group["wb97x_tz.energy"] = np.array([-40.6, np.nan, -40.6])
    (block,), _ = read(path)
    np.testing.assert_allclose(block.labels["force"], 0.1 * HARTREE)
    (block,), source = read(path, level="wb97x_tz")
    assert set(block.labels) == {"energy"}
    assert source.notes == ["level wb97x_tz"]
    with pytest.raises(UserError, match="no level 'ccsd'; there are wb97x_dz, wb97x_tz"):
        read(path, level="ccsd")


def test_transition1x(tmp_path):
    path = tmp_path / "t1x.h5"
    with h5py.File(path, "w") as handle:
        for part in ("data", "val"):
            group = handle.create_group(f"{part}/H2/rxn0001")
            group["atomic_numbers"] = [1, 1]
            group["positions"] = np.array([[[0, 0, 0], [0.74, 0, 0]]] * 3)
            group["wB97x_6-31G(d).energy"] = [-31.0, -31.1, -31.2]
            group["wB97x_6-31G(d).forces"] = np.zeros((3, 2, 3))
            group.create_group("reactant")
    (block,), _ = read(path)
    assert guess(path) == "transition1x"
    assert block.group == "H2/rxn0001"
    assert block.labels["energy"].tolist() == [-31.0, -31.1, -31.2]


def test_aselmdb(tmp_path):
    path = write_aselmdb(tmp_path / "data.aselmdb", [ase_row(), ase_row(0.1)])
    specs = [PropertySpec("gap", "band_gap", "eV")]
    frames, source = read(tmp_path, properties=specs)
    assert guess(path) == guess(tmp_path) == "aselmdb"
    assert source.total == 2
    assert frames[1].labels["gap"].tolist() == [[5.1]]
    assert frames[1].labels["force"][0, 0].tolist() == [0.0, 0.1, 0.0]
    volume = 2 * 2.8**3
    expected = -volume * np.array([[1, 0.6, 0.5], [0.6, 2, 0.4], [0.5, 0.4, 3]]) * 0.01
    np.testing.assert_allclose(frames[0].labels["virial"][0], expected)


def crystal() -> ase.Atoms:
    """Rock salt with energy, forces, stress and two numbers in info."""
    atoms = ase.Atoms("NaCl", [[0, 0, 0], [2.8, 2.8, 2.8]], cell=2.8 * (1 - np.eye(3)), pbc=True)
    atoms.calc = SinglePointCalculator(
        atoms, energy=-1.0, forces=[[0, 0, 1], [0, 0, -1]], stress=[0.1, 0.2, 0.3, 0, 0, 0]
    )
    atoms.info.update(gap=8.5, name="salt")
    return atoms


@pytest.mark.parametrize("name", ["a.extxyz", "a.xyz", "a.db"])
def test_ase_files(tmp_path, name):
    path = tmp_path / name
    atoms = crystal()
    if name.endswith(".db"):
        with ase.db.connect(path) as database:
            database.write(atoms, gap=8.5)
    else:
        ase.io.write(path, [atoms, atoms], format="extxyz")
    frames, _ = read(
        path,
        properties=[PropertySpec("gap", "gap", "eV")],
        energy_unit="hartree",
        force_unit="hartree/bohr",
    )
    one = frames[0]
    np.testing.assert_allclose(one.labels["energy"], -HARTREE)
    np.testing.assert_allclose(one.labels["force"][0, 0, 2], HARTREE / BOHR)
    assert one.labels["gap"].tolist() == [[8.5]]
    np.testing.assert_allclose(
        one.labels["virial"][0], -atoms.get_volume() * np.diag([0.1, 0.2, 0.3])
    )


def test_ase_no_cell_and_names(tmp_path):
    path = tmp_path / "a.extxyz"
    ase.io.write(path, [crystal(), crystal()])
    frames, _ = read(path, no_cell=True)
    assert frames[0].cells is None
    assert "virial" not in frames[0].labels
    with pytest.raises(UserError, match=r"'salt' was already used by a\.extxyz:0"):
        read(path, id_key="name")


@pytest.mark.parametrize("name", ["a.cif", "POSCAR"])
def test_ase_structure_files(tmp_path, name):
    ase.io.write(tmp_path / name, crystal(), format="vasp" if name == "POSCAR" else None)
    (frames,), _ = read(tmp_path / name)
    assert sorted(frames.numbers) == [11, 17]
    np.testing.assert_allclose(abs(np.linalg.det(frames.cells[0])), crystal().get_volume())


def test_npz(tmp_path):
    path = tmp_path / "qm7x.npz"
    numbers = np.array([[8, 1, 1], [1, 1, 0]])
    coords = np.arange(18.0).reshape(2, 3, 3)
    np.savez(path, R=coords, z=numbers, E=np.array([[-1.0], [-2.0]]), F=coords)
    frames, _ = read(path, energy_unit="kcal/mol")
    assert [f.numbers.tolist() for f in frames] == [[8, 1, 1], [1, 1]]
    np.testing.assert_allclose(frames[1].labels["energy"], -2 * 0.0433641, rtol=1e-6)
    with pytest.raises(UserError, match="--energy-unit"):
        read(path)


def test_table_of_files(tmp_path):
    ase.io.write(tmp_path / "salt.cif", crystal())
    path = tmp_path / "table.csv"
    path.write_text("id,file,gap\nx1,salt.cif,8.5\nx2,salt.cif,\n")
    frames, source = read(path, properties=[PropertySpec("gap", "gap", "eV")])
    assert [f.ids[0] for f in frames] == ["x1", "x2"]
    assert np.isnan(frames[1].labels["gap"]).all()
    assert source.units == {"gap": "eV"}


@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
def test_table_of_smiles(tmp_path, name):
    pytest.importorskip("rdkit")
    path = tmp_path / name
    if name.endswith("parquet"):
        pa = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        content = {"smiles": ["CCO", "C(", "[Na+].[Cl-]"], "density": [0.79, 1.0, 2.0]}
        parquet.write_table(pa.table(content), path)
    else:
        path.write_text("smiles,density\nCCO,0.79\nC(,1\n[Na+].[Cl-],2\n")
    frames, source = read(path, properties=[PropertySpec("density", "density", "g/cm^3")])
    assert isinstance(frames[0], Frames)
    assert len(frames[0].numbers) == 9
    assert frames[1].reason == "RDKit cannot parse the SMILES"
    assert "generated from SMILES" in source.notes[0]


def test_results_of_the_calculator_are_properties(tmp_path):
    atoms = crystal()
    atoms.calc.results.update(dipole=np.array([0.1, 0.2, 0.3]), magmom=2.0)
    path = tmp_path / "a.extxyz"
    ase.io.write(path, atoms)
    specs = [PropertySpec(name, key, "1") for name, key in (("mu", "dipole"), ("m", "magmom"))]
    frames, _ = read(path, properties=[*specs, PropertySpec("e_total", "energy", "eV")])
    assert frames[0].labels["mu"].tolist() == [[0.1, 0.2, 0.3]]
    assert frames[0].labels["m"].tolist() == [[2.0]]
    assert frames[0].labels["e_total"].tolist() == [[-1.0]]
    assert frames[0].labels["energy"].tolist() == [-1.0]
    with pytest.raises(UserError, match=r"no 'homo' in info; there is gap, name, .*energy"):
        read(path, properties=[PropertySpec("homo", "homo", "eV")])
    with pytest.raises(UserError, match="forces has a value for every atom"):
        read(path, properties=[PropertySpec("f", "forces", "eV/A")])


def test_data_of_an_ase_database_are_read(tmp_path):
    with ase.db.connect(tmp_path / "a.db") as database:
        database.write(crystal(), data={"spectrum": [1.0, 2.0, 3.0]})
    frames, _ = read(tmp_path / "a.db", properties=[PropertySpec("s", "spectrum", "1")])
    assert frames[0].labels["s"].tolist() == [[1.0, 2.0, 3.0]]


@pytest.mark.parametrize("name", ["a@1.xyz", "postgres.xyz"])
def test_names_that_ase_would_take_for_something_else(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ase.io.write("plain.xyz", [crystal(), crystal()], format="extxyz")
    (tmp_path / "plain.xyz").rename(name)
    frames, _ = read(tmp_path / name)
    assert len(frames) == 2


def test_hidden_files_of_a_folder_are_named(tmp_path):
    folder = tmp_path / "folder"
    (folder / "more").mkdir(parents=True)
    ase.io.write(folder / "a.cif", crystal())
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    frames, source = read(folder)
    assert len(frames) == 1
    assert "not read: .DS_Store, more" in source.notes[-1]
