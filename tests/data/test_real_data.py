"""Real public data, against what ase and dpdata read from the same files."""

from __future__ import annotations

import gzip
import json

import ase.io
import dpdata
import numpy as np
import pytest
from scipy.stats import gaussian_kde

from deepmd_mft.cli import main
from deepmd_mft.data.convert import convert
from deepmd_mft.data.frames import FORCE_FIELD_UNITS
from deepmd_mft.data.readers import ReadOptions, open_source
from deepmd_mft.splits import ofm
from deepmd_mft.structures.cells import right_handed
from deepmd_mft.structures.structure_set import StructureSet

FOLDS = ("LOCO", "SparseXcluster", "SparseXsingle", "SparseYcluster", "SparseYsingle")
CRYSTALS = ("mptrj-random-1k", "alexandria-random-1k", "mpf-TP", "random-TP")


def rows_with_labels(path):
    """Yield (numbers, coords, cell, labels) of every row of an npy set."""
    data = StructureSet.open(path)
    known = {
        name: {
            int(row): values
            for _, rows, block in data.label_blocks(name)
            for row, values in zip(rows, block, strict=True)
        }
        for name in FORCE_FIELD_UNITS
    }
    for row, (numbers, coords, cell) in enumerate(data):
        labels = {name: values[row] for name, values in known.items() if row in values}
        yield numbers, coords, cell, labels


@pytest.mark.parametrize("name", CRYSTALS)
def test_crystals_as_ase_and_dpdata_read_them(shared, tmp_path, name):
    path = shared / "crystals" / f"{name}.xyz.gz"
    convert(open_source(path), tmp_path / "set", limit=25, progress=False)
    reference = list(ase.io.iread(str(path), index=":25"))
    rows = list(rows_with_labels(tmp_path / "set"))
    assert len(rows) == len(reference) == 25
    for atoms, (numbers, coords, cell, labels) in zip(reference, rows, strict=True):
        np.testing.assert_array_equal(numbers, atoms.numbers)
        np.testing.assert_array_equal(coords, atoms.positions)
        np.testing.assert_array_equal(cell, right_handed(atoms.cell.array))
        assert labels["energy"] == atoms.get_potential_energy()
        np.testing.assert_array_equal(labels["force"].reshape(-1, 3), atoms.get_forces())
        theirs = dpdata.LabeledSystem(atoms, fmt="ase/structure").data
        virial = labels["virial"].reshape(3, 3)
        np.testing.assert_allclose(virial, theirs["virials"][0], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(
            virial, -atoms.get_volume() * atoms.get_stress(voigt=False), atol=1e-9
        )


def test_molecules(shared, tmp_path):
    folder = shared / "molecules"
    convert(open_source(folder / "spice_673.xyz.gz"), tmp_path / "spice", limit=90, progress=False)
    reference = list(ase.io.iread(str(folder / "spice_673.xyz.gz"), index=":90"))
    for atoms, (numbers, coords, cell, labels) in zip(
        reference, rows_with_labels(tmp_path / "spice"), strict=True
    ):
        np.testing.assert_array_equal(numbers, atoms.numbers)
        np.testing.assert_array_equal(coords, atoms.positions)
        assert cell is None
        assert labels["energy"] == atoms.get_potential_energy()
        np.testing.assert_array_equal(labels["force"].reshape(-1, 3), atoms.get_forces())

    options = ReadOptions(energy_unit="eV")
    source = open_source(folder / "qm7x_2500.npz", options=options)
    convert(source, tmp_path / "qm7x", limit=300, progress=False)
    archive = np.load(folder / "qm7x_2500.npz")
    for row, (numbers, coords, _, labels) in enumerate(rows_with_labels(tmp_path / "qm7x")):
        real = archive["z"][row] > 0
        np.testing.assert_array_equal(numbers, archive["z"][row][real])
        np.testing.assert_array_equal(coords, archive["R"][row][real])
        np.testing.assert_array_equal(labels["force"].reshape(-1, 3), archive["F"][row][real])
        assert labels["energy"] == archive["E"][row]


def test_rmd17_in_kcal_would_be_another_energy(shared, tmp_path):
    path = shared / "molecules" / "rmd17" / "ethanol_train_01.xyz.gz"
    options = ReadOptions(energy_key="Energy", no_cell=True)
    convert(open_source(path, options=options), tmp_path / "a", limit=5, progress=False)
    atoms = next(ase.io.iread(str(path), index=":1"))
    numbers, _, cell, labels = next(rows_with_labels(tmp_path / "a"))
    assert cell is None
    assert len(numbers) == 9
    assert labels["energy"] == atoms.info["Energy"]
    # Ethanol at PBE has about -155 Hartree.
    assert labels["energy"] == pytest.approx(-155 * 27.2114, rel=0.01)


@pytest.fixture
def dielectric(shared, tmp_path):
    """MatBench's refractive indices, converted."""
    source = open_source(shared / "matbench" / "matbench_dielectric.json.gz")
    convert(source, tmp_path / "dielectric", progress=False)
    return tmp_path / "dielectric"


def test_matbench(shared, dielectric):
    path = shared / "matbench" / "matbench_dielectric.json.gz"
    with gzip.open(path, "rt") as handle:
        content = json.load(handle)["data"]
    data = StructureSet.open(dielectric)
    np.testing.assert_array_equal(data.label("n"), [row[1] for row in content])
    assert data.rows.ids[0] == "mb-dielectric-0001"
    for (structure, _), (numbers, coords, cell) in zip(content, data, strict=True):
        fractions = np.array([site["abc"] for site in structure["sites"]])
        np.testing.assert_allclose(coords, fractions @ cell, atol=1e-5)
        np.testing.assert_allclose(abs(np.linalg.det(cell)), structure["lattice"]["volume"])
        assert len(numbers) == len(structure["sites"])


@pytest.mark.parametrize("name", FOLDS)
def test_published_folds_are_reproduced_exactly(shared, dielectric, tmp_path, name):
    folder = shared / "matbench" / "folds_dielectric"
    test, val = (folder / f"OFM_{name}_{part}.json.gz" for part in ("test", "val"))
    out = tmp_path / "split"
    arguments = ["split", "from-file", str(dielectric), str(out), "--write", "none"]
    assert main([*arguments, "--test-file", str(test), "--val-file", str(val)]) == 0
    published = {
        part: json.loads(gzip.decompress(path.read_bytes()))
        for part, path in (("ood_test", test), ("val", val))
    }
    folds = json.loads((out / "split.json").read_text())["folds"]
    assert [fold["name"] for fold in folds] == list(published["ood_test"])
    for fold in folds:
        for part, rows in published.items():
            assert fold[part] == sorted(rows[fold["name"]])
        rest = set(range(4764)) - set(fold["ood_test"]) - set(fold["val"])
        assert fold["train"] == sorted(rest)


@pytest.mark.parametrize("kind", ["single", "cluster"])
def test_sparse_y_takes_its_targets_from_the_500_sparsest(
    shared, dielectric, tmp_path, monkeypatch, kind
):
    # Neighbours need features of all 4,764 crystals; any will do for the targets.
    monkeypatch.setattr(ofm, "orbital_field_matrices", lambda *_, **__: np.arange(4764.0)[:, None])
    out = tmp_path / "split"
    arguments = [f"sparse-y-{kind}", str(dielectric), str(out), "--target", "n"]
    arguments += ["--write", "none", "--duplicates", "ignore"]
    assert main(["split", *arguments]) == 0
    values = StructureSet.open(dielectric).label("n")
    order = np.argsort(gaussian_kde(values)(values), kind="stable")
    sparsest = set(order[:500].tolist())
    folds = json.loads((out / "split.json").read_text())["folds"]
    assert len(folds) == 50
    for fold in folds:
        assert set(fold["ood_test"]) & sparsest
        assert len(fold["ood_test"]) == (1 if kind == "single" else 11)
        assert len(fold["val"]) == (953 if kind == "single" else 951), "as published"


def test_published_neighbours_are_neighbours_here(shared, dielectric):
    """The ten published neighbours are the nearest ones in our orbital-field matrices."""
    path = shared / "matbench" / "folds_dielectric" / "OFM_SparseYcluster_test.json.gz"
    clusters = list(json.loads(gzip.decompress(path.read_bytes())).values())[:12]
    rng = np.random.default_rng(0)
    rows = sorted({*np.concatenate(clusters).tolist(), *rng.choice(4764, 300).tolist()})
    structures = list(StructureSet.open(dielectric))
    matrices = ofm.orbital_field_matrices([structures[row] for row in rows], jobs=1)
    same = 0
    for target, *published in clusters:
        distance = np.linalg.norm(matrices - matrices[rows.index(target)], axis=1)
        distance[rows.index(target)] = np.inf
        nearest = [rows[i] for i in np.argsort(distance, kind="stable")[:10]]
        same += nearest == published
    assert same >= 9, f"{same} of 12 in the published order"


def test_boom_10k_from_smiles(shared, tmp_path):
    pytest.importorskip("rdkit")
    path = shared / "boom10k" / "10k_dft_density_data.csv.gz"
    arguments = ["convert", str(path), str(tmp_path / "set"), "--limit", "40"]
    assert main([*arguments, "--property", "density=density:g/cm^3"]) == 0
    data = StructureSet.open(tmp_path / "set")
    assert len(data) >= 38
    assert data.units == {"density": "g/cm^3"}
    notes = json.loads((tmp_path / "set" / "dataset.json").read_text())["notes"]
    assert "generated from SMILES" in notes[0]
