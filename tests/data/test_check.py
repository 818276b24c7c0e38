"""The rules that every structure passes, from every reader that can break them."""

from __future__ import annotations

import gzip
import json

import ase
import ase.db
import ase.io
import h5py
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from deepmd.pt.utils import env
from deepmd.pt.utils.nlist import extend_input_and_build_neighbor_list

from deepmd_mft.cli import main
from deepmd_mft.structures.structure_set import StructureSet
from tests.helpers.conversion import CIF, FULL, convert, salt
from tests.helpers.layouts import ase_row, matbench_structure, write_aselmdb, write_matbench


def skipped(source, out, capsys, *options: str) -> str:
    """Convert what must be left out altogether; return the message."""
    assert main(["convert", str(source), str(out), *map(str, options)]) == 1
    return capsys.readouterr().err


def mirrored_row() -> dict:
    row = ase_row()
    row["cell"] = row["cell"][::-1]
    return row


def write_left_handed(tmp_path, kind: str):
    """The lattice of rock salt with a left-handed cell, in the layout of one reader."""
    atoms = salt()
    atoms.set_cell(atoms.cell[::-1], scale_atoms=False)
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, stress=[0.1, 0.2, 0.3, 0.01, 0.02, 0.03])
    path = tmp_path / f"left.{kind}"
    if kind == "extxyz":
        ase.io.write(path, atoms)
    elif kind == "db":
        ase.db.connect(path).write(atoms)
    elif kind == "aselmdb":
        write_aselmdb(path, [mirrored_row()])
    elif kind == "json":
        structure = matbench_structure(5.64)
        structure["lattice"]["matrix"].reverse()
        path = write_matbench(tmp_path / "matbench_dielectric.json", [[structure, 1.0]])
    else:
        atoms.write(tmp_path / "POSCAR", format="vasp")
        path = tmp_path / "table.csv"
        path.write_text("file,n\nPOSCAR,1.5\n")
    return path


@pytest.mark.parametrize("kind", ["extxyz", "db", "aselmdb", "json", "csv"])
def test_left_handed_cells_become_right_handed(tmp_path, kind):
    path = write_left_handed(tmp_path, kind)
    options = ["--property", "n=n:1"] if kind == "csv" else []
    summary = convert(path, tmp_path / "set", *options)
    (remark,) = [text for text in summary["remarks"] if "right-handed" in text]
    assert summary["remarks"][remark]["structures"] == 1
    ((numbers, coords, cell),) = StructureSet.open(tmp_path / "set")
    assert np.linalg.det(cell) > 0
    assert sorted(numbers) == [11, 17]
    # ase knows the neighbours of the lattice, whatever its handedness.
    atoms = ase.Atoms(numbers, coords, cell=cell, pbc=True)
    device = env.DEVICE
    import torch

    *_, nlist = extend_input_and_build_neighbor_list(
        torch.tensor(coords.reshape(1, -1), device=device),
        torch.zeros((1, 2), dtype=torch.long, device=device),
        4.1,
        [60],
        mixed_types=True,
        box=torch.tensor(cell.reshape(1, 9), device=device),
    )
    from ase.neighborlist import neighbor_list

    expected = np.bincount(neighbor_list("i", atoms, 4.1))
    assert (nlist >= 0).sum(-1).tolist() == [expected.tolist()]
    assert expected[0] >= 18


def test_virial_and_coordinates_of_a_left_handed_cell(tmp_path):
    path = write_left_handed(tmp_path, "extxyz")
    atoms = ase.io.read(path)
    convert(path, tmp_path / "set")
    virial = np.load(tmp_path / "set" / "2" / "set.000" / "virial.npy").reshape(3, 3)
    np.testing.assert_allclose(virial, -abs(atoms.get_volume()) * atoms.get_stress(voigt=False))
    coords = np.load(tmp_path / "set" / "2" / "set.000" / "coord.npy").reshape(-1, 3)
    np.testing.assert_array_equal(coords, atoms.positions)


MIXED = "Na1 Na 0 0 0 0.5\nK1 K 0 0 0 0.5\nCl1 Cl 0.5 0.5 0.5 1"


@pytest.mark.parametrize("sites", [MIXED, FULL.format(0.75), FULL.format("0.75(2)")])
@pytest.mark.parametrize("layout", ["file", "folder", "cell", "table"])
def test_partial_occupancy_in_cif(tmp_path, capsys, sites, layout):
    text = CIF.format(name="x", sites=sites)
    folder = tmp_path / "cifs"
    folder.mkdir()
    source = folder / "x.cif"
    source.write_text(text)
    options = []
    if layout == "folder":
        source = folder
    elif layout in {"cell", "table"}:
        source = folder / "t.csv"
        cell = f'"{text}"' if layout == "cell" else "x.cif"
        source.write_text(f"cif,gap\n{cell},1\n")
        options = ["--property", "gap=gap:eV"]
    assert "sites with partial occupation" in skipped(source, tmp_path / "set", capsys, *options)


@pytest.mark.parametrize("occupancy", ["1", "1.000", ".", "?", "1.0(1)", "0.9999"])
def test_full_occupancy_is_kept(tmp_path, occupancy):
    path = tmp_path / "x.cif"
    path.write_text(CIF.format(name="x", sites=FULL.format(occupancy)))
    assert convert(path, tmp_path / "set")["structures"] == 1


@pytest.mark.parametrize(
    "occupancy",
    [
        {"0": {"Na": 0.5, "K": 0.5}, "1": {"Cl": 1.0}},
        [{"Na": 1.0}, {"Cl": 0.25}],
        [0.5, 1.0],
        {"0": 1.0, "1": 0.5},
        json.dumps({"0": {"Na": 0.5}}),
    ],
)
@pytest.mark.parametrize("kind", ["extxyz", "json", "aselmdb", "db"])
def test_partial_occupancy_in_info(tmp_path, capsys, occupancy, kind):
    path = tmp_path / f"a.{kind}"
    if kind == "aselmdb":
        row = ase_row()
        row["data"]["occupancy"] = occupancy
        write_aselmdb(path, [row])
    elif kind == "extxyz":
        ase.io.write(path, salt(info={"occupancy": occupancy}))
    else:
        with ase.db.connect(path) as database:
            database.write(salt(), data={"occupancy": occupancy})
    options = ["--kind", "ase"] if kind == "json" else []
    assert "sites with partial occupation" in skipped(path, tmp_path / "set", capsys, *options)


@pytest.mark.parametrize("symbols", ["XCl", "NaX"])
def test_dummy_atoms_in_ase_files(tmp_path, capsys, symbols):
    atoms = salt()
    atoms.symbols[:] = ase.Atoms(symbols).numbers
    path = tmp_path / "a.extxyz"
    ase.io.write(path, [atoms, salt()])
    summary = convert(path, tmp_path / "set")
    (reason,) = summary["skipped"]
    assert "dummy atoms" in reason
    assert summary["skipped"][reason]["examples"] == ["a.extxyz:0"]
    assert summary["structures"] == 1
    assert set(summary["elements"]) == {"Na", "Cl"}


@pytest.mark.parametrize("z", [0, 119, -3])
@pytest.mark.parametrize("kind", ["npz", "npz-padded", "spice", "ani1x", "aselmdb"])
def test_numbers_that_are_no_elements(tmp_path, capsys, z, kind):
    numbers, coords = np.array([z, 1]), np.array([[[0, 0, 0], [0, 0, 1.5]]])
    options = []
    if kind.startswith("npz"):
        path = tmp_path / "a.npz"
        numbers = numbers[None] if kind == "npz-padded" else numbers
        np.savez(path, R=coords, z=numbers, E=np.zeros(1), F=coords)
        options = ["--energy-unit", "eV"]
    elif kind == "aselmdb":
        path = write_aselmdb(tmp_path / "a.aselmdb", [{**ase_row(), "numbers": [z, 17]}])
    else:
        path = tmp_path / "a.h5"
        names = {"spice": ("conformations", "dft_total_energy"), "ani1x": None}[kind] or (
            "coordinates",
            "wb97x_dz.energy",
        )
        with h5py.File(path, "w") as handle:
            handle["x/atomic_numbers"] = numbers
            handle[f"x/{names[0]}"] = coords
            handle[f"x/{names[1]}"] = np.zeros(1)
    message = skipped(path, tmp_path / "set", capsys, *options)
    assert ("dummy atoms" if z == 0 else "not from 1 to 118") in message


@pytest.mark.parametrize("species", ["X", "Vac", "Xa"])
def test_dummy_species_of_pymatgen(tmp_path, species):
    rows = [[matbench_structure(5.6, species), 1.0], [matbench_structure(5.6, "D"), 2.0]]
    summary = convert(write_matbench(tmp_path / "matbench_dielectric.json", rows), tmp_path / "set")
    (reason,) = summary["skipped"]
    assert "dummy atoms" in reason
    assert summary["elements"] == {"H": 1, "Cl": 1}


def slab(height: float, pbc=(True, True, False), **kwargs) -> ase.Atoms:
    """Two layers of rock salt, 2.82 A thick, in a cell of a given height."""
    positions = [[0, 0, 0], [0, 0, 2.82]]
    return ase.Atoms("NaCl", positions, cell=[3.99, 3.99, height], pbc=pbc, **kwargs)


def test_partly_periodic_structures(tmp_path):
    path = tmp_path / "slabs.extxyz"
    thin, thick, wire = slab(8.7), slab(8.9), slab(8.9, (False, True, False))
    flat = slab(0.0)
    ase.io.write(path, [thin, thick, wire, flat])
    summary = convert(path, tmp_path / "set")
    (reason,), (remark,) = summary["skipped"], summary["remarks"]
    assert reason == "partly periodic with at most 6 A of vacuum along an open direction"
    expected = ["slabs.extxyz:0", "slabs.extxyz:2", "slabs.extxyz:3"]
    assert summary["skipped"][reason]["examples"] == expected
    assert remark == "partly periodic with more than 6 A of vacuum, written as periodic"
    assert summary["remarks"][remark]["examples"] == ["slabs.extxyz:1"]
    summary = convert(path, tmp_path / "wide", "--rcut", "3.5")
    assert summary["remarks"]["partly periodic with more than 3.5 A of vacuum, written as periodic"]
    assert summary["structures"] == 3


def test_vacuum_is_measured_along_the_normal(tmp_path, capsys):
    # The cell vector is 14 A long and leans over: the layers are 7 A apart, 4.2 A of it vacuum.
    atoms = slab(8.0)
    atoms.set_cell([[3.99, 0, 0], [0, 3.99, 0], [12.1, 0, 7.0]], scale_atoms=False)
    path = tmp_path / "a.extxyz"
    ase.io.write(path, atoms)
    assert "partly periodic" in skipped(path, tmp_path / "set", capsys)


@pytest.mark.parametrize("kind", ["aselmdb", "matbench"])
def test_partly_periodic_in_other_layouts(tmp_path, capsys, kind):
    if kind == "aselmdb":
        path = write_aselmdb(tmp_path / "a.aselmdb", [{**ase_row(), "pbc": [True, False, True]}])
    else:
        structure = matbench_structure(5.6)
        structure["lattice"]["pbc"] = [True, True, False]
        path = write_matbench(tmp_path / "matbench_dielectric.json.gz", [[structure, 1.0]])
    assert "partly periodic" in skipped(path, tmp_path / "set", capsys)


def test_structures_without_atoms(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    ase.io.write(folder / "a.xyz", [salt(), ase.Atoms()])
    (folder / "b.cif").write_text("data_global\n_journal_year 1999\n")
    summary = convert(folder, tmp_path / "set")
    assert summary["skipped"]["no atoms"]["examples"] == ["a.xyz:1"]
    assert summary["skipped"]["the file holds no structure"]["examples"] == ["b.cif"]


def test_charges_and_radicals_are_mentioned(tmp_path):
    water = ase.Atoms("OH2", [[0, 0, 0.12], [0, 0.76, -0.48], [0, -0.76, -0.48]])
    hydroxyl, hydroxide, stated = water[:2], water[:2], water[:2]
    hydroxide.info["charge"] = -1
    stated.info["total_charge"] = 0
    path = tmp_path / "a.extxyz"
    ase.io.write(path, [water, hydroxyl, hydroxide, stated])
    remarks = convert(path, tmp_path / "set")["remarks"]
    assert remarks["charged"]["examples"] == ["a.extxyz:2"]
    assert remarks["radicals (unpaired electrons)"]["examples"] == ["a.extxyz:3"]
    odd = "an odd number of electrons: radicals, or ions whose charge is not stated"
    assert remarks[odd]["examples"] == ["a.extxyz:1"]


def test_charges_of_spice_come_from_its_smiles(tmp_path):
    path = tmp_path / "spice.hdf5"
    with h5py.File(path, "w") as handle:
        for name, smiles in (("a", b"[O-:1][H:2]"), ("b", b"[H:2][O:1]")):
            handle[f"{name}/atomic_numbers"] = np.array([8, 1])
            handle[f"{name}/conformations"] = np.array([[[0, 0, 0], [0, 0, 1.8]]] * 2)
            handle[f"{name}/dft_total_energy"] = np.zeros(2)
            handle[f"{name}/smiles"] = [smiles]
    remarks = convert(path, tmp_path / "set")["remarks"]
    assert remarks["charged"] == {"structures": 2, "examples": ["a/0", "a/1"]}
    assert remarks["radicals (unpaired electrons)"]["examples"] == ["b/0", "b/1"]


def test_arrays_that_do_not_fit_together(tmp_path, capsys):
    path = tmp_path / "spice.hdf5"
    with h5py.File(path, "w") as handle:
        handle["x/atomic_numbers"] = np.array([8, 1, 1])
        handle["x/conformations"] = np.zeros((2, 4, 3))
        handle["x/dft_total_energy"] = np.zeros(2)
    message = skipped(path, tmp_path / "set", capsys)
    assert "x/0: coordinates of shape 2 x 4 x 3, but 2 x 3 x 3 belongs to" in message


@pytest.mark.parametrize("periodic", [True, False])
def test_overlap_is_found_in_large_structures(tmp_path, capsys, periodic):
    """Also between the first and the last atoms of a structure that is looked at in blocks."""
    grid = np.stack(np.meshgrid(*[np.arange(13) * 2.0] * 3), -1).reshape(-1, 3)
    atoms = ase.Atoms(f"C{len(grid)}", grid, cell=[26.0] * 3, pbc=periodic)
    fine, bad = atoms.copy(), atoms.copy()
    # Across the cell's face if it repeats, else directly.
    bad.positions[-1] = grid[0] - [0.1, 0, 0] + [26.0 * periodic, 0, 0]
    path = tmp_path / "a.xyz.gz"
    with gzip.open(path, "wt") as handle:
        ase.io.write(handle, [fine, bad], format="extxyz")
    summary = convert(path, tmp_path / "set")
    assert summary["skipped"]["two atoms are closer than 0.3 A"]["examples"] == ["a.xyz.gz:1"]
    assert summary["structures"] == 1
