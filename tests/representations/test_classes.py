"""Classes of atoms and edges, samples of them, and the structures they come from."""

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.data import covalent_radii

from deepmd_mft.errors import UserError
from deepmd_mft.representations.classes import (
    Windows,
    atom_classes,
    covalent_neighbours,
    find_edges,
    sample_classes,
)
from deepmd_mft.structures.structure import Structure
from deepmd_mft.structures.structure_set import StructureSet
from tests.helpers.dp import DATA
from tests.helpers.models import structure_set


def test_classes_of_molecules_are_what_a_chemist_says():
    found = atom_classes(structure_set(molecule("CH3OH"), molecule("HCN")))
    assert sorted(found) == sorted(
        ["C(4)", "O(2)", "H(1)", "H(1)", "H(1)", "H(1)", "C(2)", "N(1)", "H(1)"]
    )


def test_neighbours_in_a_crystal_are_counted_through_the_cell():
    diamond = structure_set(bulk("C", "diamond", a=3.567)).structures[0]
    assert covalent_neighbours(diamond).tolist() == [4, 4]


def test_neighbours_are_within_115_percent_of_the_radii():
    limit = 1.15 * 2 * covalent_radii[6]
    for distance, expected in ((0.999 * limit, 1), (1.001 * limit, 0)):
        pair = Structure(np.array([6, 6]), np.array([[0.0, 0, 0], [0, 0, distance]]))
        assert covalent_neighbours(pair).tolist() == [expected] * 2


def test_edges_are_directed_and_sorted_into_windows():
    structures = StructureSet("ood", [DATA / "ood_test"], most=30)
    windows = Windows((2.0, 3.0), (3.5, 4.5))
    edges = find_edges(structures, ["C-H", "C-O"], windows)
    bond = {"H": 1.15 * sum(covalent_radii[[6, 1]]), "O": 1.15 * sum(covalent_radii[[6, 8]])}
    expected = {}
    for structure in structures.structures:
        z, x = structure.numbers, structure.positions
        for i in np.flatnonzero(z == 6):
            for j, element in [
                (j, "H" if z[j] == 1 else "O") for j in np.flatnonzero((z == 1) | (z == 8))
            ]:
                d = np.linalg.norm(x[j] - x[i])
                kind = (
                    "near" if d < bond[element]
                    else "middle" if 2 <= d <= 3
                    else "far" if 3.5 <= d <= 4.5
                    else None
                )  # fmt: skip
                if kind:
                    key = f"C-{element} {kind}"
                    expected[key] = expected.get(key, 0) + 1
    names, counts = np.unique(edges.labels, return_counts=True)
    assert dict(zip(names.tolist(), counts.tolist(), strict=True)) == expected
    for row in (0, len(edges) // 2, len(edges) - 1):
        structure = structures.structures[edges.structure[row]]
        there = structure.positions[edges.centre[row]] + edges.vector[row]
        (neighbour,) = np.flatnonzero(np.linalg.norm(structure.positions - there, axis=1) < 1e-6)
        assert structure.numbers[edges.centre[row]] == 6
        assert edges.labels[row].startswith("C-H" if structure.numbers[neighbour] == 1 else "C-O")


def test_no_such_pair_and_no_such_element():
    structures = structure_set(molecule("H2O"))
    with pytest.raises(UserError, match="no C-H pair"):
        find_edges(structures, ["C-H"], Windows())
    with pytest.raises(UserError, match="'Xx' is no element"):
        find_edges(structures, ["C-Xx"], Windows())


def test_samples_leave_out_rare_classes_and_say_so():
    labels = np.array(["a"] * 500 + ["b"] * 3 + ["c"] * 30)
    chosen, rare = sample_classes(labels, per_class=100, least=20, seed=1)
    assert np.unique(labels[chosen], return_counts=True)[1].tolist() == [100, 30]
    assert rare == {"b": 3}
    assert (np.diff(chosen) > 0).all()
    np.testing.assert_array_equal(chosen, sample_classes(labels, per_class=100, seed=1)[0])
    with pytest.raises(UserError, match="only 1 class"):
        sample_classes(labels, least=100)


def test_padding_of_mixed_systems_is_no_atom():
    structures = StructureSet("ood", [DATA / "ood_test"])
    assert len(structures) == 1000
    types = np.load(next((DATA / "ood_test").rglob("real_atom_types.npy")))
    np.testing.assert_array_equal(structures.natoms, (types >= 0).sum(axis=1))
    assert {z for s in structures.structures for z in s.numbers.tolist()} == {1, 6, 7, 8, 9}


def test_structures_are_drawn_in_order_with_their_labels(tmp_path):
    every = StructureSet("ood", [DATA / "ood_test"])
    some = StructureSet("ood", [DATA / "ood_test"], most=10, seed=3)
    rows = [every.ids.index(name) for name in some.ids]
    assert len(some) == 10
    assert rows == sorted(rows)
    np.testing.assert_array_equal(some.label("gap"), every.label("gap")[rows])
    for row, structure in zip(rows, some.structures, strict=True):
        np.testing.assert_array_equal(structure.positions, every.structures[row].positions)
    with pytest.raises(UserError, match="does not exist"):
        StructureSet("ood", [tmp_path / "none"])
    with pytest.raises(UserError, match="homo"):
        every.label("homo")


def test_files_that_ase_reads(tmp_path):
    water, silicon = molecule("H2O"), bulk("Si")
    water.info["gap"], silicon.info["gap"] = 0.4, 0.1
    from ase.io import write

    write(tmp_path / "both.xyz", [water, silicon])
    found = StructureSet("both", [tmp_path / "both.xyz"])
    assert [s.cell is None for s in found.structures] == [True, False]
    assert found.label("gap").tolist() == [0.4, 0.1]
    with pytest.raises(UserError, match=r"no label 'homo'.*gap"):
        found.label("homo")
