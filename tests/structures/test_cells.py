"""Left-handed cells: the same lattice, right-handed."""

from __future__ import annotations

import ase.build
import numpy as np
from ase.neighborlist import neighbor_list

from deepmd_mft.bridge.neighbours import count_neighbours
from deepmd_mft.structures.cells import left_handed, right_handed

SWAP = [1, 0, 2]


def test_a_left_handed_cell_is_negated_and_a_right_handed_one_stays() -> None:
    cell = np.array([[4.0, 0.1, 0.0], [0.3, 5.0, 0.2], [0.0, 1.0, 6.0]])
    both = np.array([cell, cell[SWAP], np.full((3, 3), np.nan), np.zeros((3, 3))])
    assert left_handed(both).tolist() == [False, True, False, False]
    mended = right_handed(both)
    np.testing.assert_array_equal(mended[0], cell)
    np.testing.assert_array_equal(mended[1], -cell[SWAP])
    assert np.linalg.det(mended[1]) > 0
    assert np.linalg.det(both[1]) < 0  # the argument is not changed
    assert right_handed(cell[SWAP]).shape == (3, 3)


def test_the_lattice_is_the_same_by_ase() -> None:
    atoms = ase.build.bulk("NaCl", "rocksalt", a=5.64)
    atoms.rattle(0.05, seed=1)
    before = np.sort(neighbor_list("d", atoms, 7.0))
    atoms.set_cell(atoms.cell.array[SWAP], scale_atoms=False)
    assert left_handed(atoms.cell.array)
    atoms.set_cell(right_handed(atoms.cell.array), scale_atoms=False)
    np.testing.assert_allclose(np.sort(neighbor_list("d", atoms, 7.0)), before, atol=1e-12)


def test_neighbours_in_a_left_handed_cell() -> None:
    """NaCl: 6 Cl and 12 Na within 4.1 Angstrom, whatever the order of the cell vectors."""
    atoms = ase.build.bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    for cell in (atoms.cell.array, atoms.cell.array[SWAP]):
        assert count_neighbours(atoms.positions, cell, 4.1).tolist() == [18] * 8
