"""Equal structures are found, however many and however noisy, and no others."""

from __future__ import annotations

import ase.build
import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from deepmd_mft.structures import duplicates
from deepmd_mft.structures.duplicates import structure_groups
from deepmd_mft.structures.fingerprints import fingerprint, short_fingerprint
from deepmd_mft.structures.structure import Structure


def molecules(n, seed=0, natoms=9):
    rng = np.random.default_rng(seed)
    numbers = np.sort(rng.choice([1, 6, 8], natoms))
    return [Structure(numbers, 2 * rng.normal(size=(natoms, 3))) for _ in range(n)]


def moved(one, seed, noise=0.0):
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(one.numbers))
    turn = Rotation.random(random_state=seed).as_matrix()
    shifted = one.positions @ turn + rng.normal(size=3) + noise * rng.normal(size=(len(order), 3))
    return Structure(one.numbers[order], shifted[order])


def by_pairs(structures, tolerance=0.01):
    """Compare everything with everything, and spread the lowest number."""
    prints = np.array([fingerprint(*one) for one in structures])
    equal = np.abs(prints[:, None] - prints[None]).max(axis=2) <= tolerance
    group = np.arange(len(structures))
    for _ in structures:
        group = np.array([group[row].min() for row in equal])
    return np.unique(group, return_inverse=True)[1]


@pytest.mark.parametrize("noise", [0.0, 1e-4, 1e-3, 3e-3])
def test_as_by_comparing_every_pair(noise):
    base = molecules(12)
    every = [*base, *(moved(base[i % 5], i, noise) for i in range(60))]
    found, expected = structure_groups(every), by_pairs(every)
    np.testing.assert_array_equal(found, expected)


def test_single_structures_are_told_apart_at_the_tolerance():
    def pair(distance):
        return Structure(np.array([6, 8]), np.array([[0.0, 0, 0], [distance, 0, 0]]))

    distances = np.array([1.0, 1.009, 1.0175, 1.03, 1.041, 1.0495])
    assert structure_groups([pair(d) for d in distances]).tolist() == [0, 0, 0, 1, 2, 2]


def test_crystals_in_other_cells():
    salt = ase.build.bulk("NaCl", "rocksalt", a=5.64)
    cubic = ase.build.bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    other = ase.build.bulk("NaCl", "rocksalt", a=5.72)
    every = [Structure(a.numbers, a.positions, a.cell.array) for a in (salt, other, cubic)]
    every.append(Structure(cubic.numbers, cubic.positions + 0.7, cubic.cell.array * 2 @ np.eye(3)))
    every.append(Structure(cubic.numbers, cubic.positions))  # a molecule of these atoms
    assert structure_groups(every).tolist() == [0, 1, 0, 2, 3]


def test_a_crystal_whose_atoms_lie_in_other_cells():
    rng = np.random.default_rng(3)
    cell = np.diag([4.0, 4.2, 4.4]) + 0.3 * rng.normal(size=(3, 3))
    one = Structure(np.array([8, 8, 12, 22]), rng.random((4, 3)) @ cell, cell)
    shifts = np.array([[0, 0, 0], [3, -2, 0], [0, 0, -5], [1, 1, 1]])
    unwrapped = Structure(one.numbers, one.positions + shifts @ cell, cell)
    assert structure_groups([one, unwrapped]).tolist() == [0, 0]


def test_a_short_fingerprint_is_part_of_the_whole():
    for one in molecules(3):
        whole = fingerprint(*one)
        assert np.isin(short_fingerprint(whole), whole).all()


@pytest.mark.parametrize("noise", [1e-5, 1e-3])
def test_many_equal_structures_are_not_compared_pair_by_pair(noise, monkeypatch):
    """2,000 copies have two million pairs; each is looked at a few times only."""
    looked_at = []

    class Tree(cKDTree):
        def query_ball_point(self, *args, **keys):
            found = super().query_ball_point(*args, **keys)
            looked_at.append(len(found))
            return found

    monkeypatch.setattr(duplicates, "cKDTree", Tree)
    one, other = molecules(2)
    copies = [moved(one, i, noise) for i in range(2000)] + [one] * 3000
    copies += [moved(other, i, noise) for i in range(1000)]
    found = structure_groups(copies)
    assert found.tolist() == [0] * 5000 + [1] * 1000
    assert sum(looked_at) < 100_000
