"""Which rows are the same thing: by group, by molecule, by structure, and through each other."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from deepmd_mft.structures.duplicates import duplicate_groups, joined_groups
from deepmd_mft.structures.molecules import canonical_smiles


def chain(stretch: float, n: int = 4) -> tuple[np.ndarray, np.ndarray, None]:
    """A bent chain of carbons; another ``stretch`` is another structure."""
    coords = np.zeros((n, 3))
    coords[:, 0] = stretch * np.arange(n)
    coords[0, 1] = 0.7
    return np.full(n, 6), coords, None


def apart(n: int) -> list[tuple[np.ndarray, np.ndarray, None]]:
    return [chain(1.2 + 0.1 * i) for i in range(n)]


def test_joined_groups_follow_every_link():
    a = np.array([0, 1, 2, 3, 4, 5])
    b = np.array([0, 1, 1, 2, 3, 4])
    c = np.array([7, 7, 3, 9, 9, 1])
    assert joined_groups(a).tolist() == [0, 1, 2, 3, 4, 5]
    assert joined_groups(a, b).tolist() == [0, 1, 1, 2, 3, 4]
    assert joined_groups(a, b, c).tolist() == [0, 0, 0, 1, 1, 2]


def test_numbers_are_in_order_of_appearance():
    rng = np.random.default_rng(4)
    one, two = rng.integers(0, 60, 100), rng.integers(0, 60, 100)
    found = joined_groups(one, two)
    _, first = np.unique(found, return_index=True)
    assert (np.diff(first) > 0).all()
    assert found[0] == 0
    # By hand: spread the smallest row number over equal labels until nothing changes.
    lowest = np.arange(100)
    for _ in range(100):
        for labels in (one, two):
            for label in np.unique(labels):
                lowest[labels == label] = lowest[labels == label].min()
    assert np.array_equal(np.unique(lowest, return_inverse=True)[1], found)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("CCO", "OCC"),
        ("c1ccccc1C", "CC1=CC=CC=C1"),
        ("CO", "[2H]CO"),
        ("CC(O)F", "[13CH3]C(O)F"),
        ("CCO", "[CH3:1][CH2:2][OH:3]"),
        ("O", "[2H]O[2H]"),
        ("CO", "[H:5][C:1]([H:2])([H:3])[O:4][H:6]"),
        ("CCO", "[C@H](C)([2H])O"),
        ("[Na+].[Cl-]", "[Cl-].[Na+]"),
    ],
)
def test_spellings_of_a_molecule(one, other):
    pytest.importorskip("rdkit")
    spelled = canonical_smiles([one, other, "CCCCN"])
    assert spelled[0] == spelled[1] != spelled[2]


@pytest.mark.parametrize(("one", "other"), [("CCO", "CCN"), ("C[NH3+]", "CN"), ("C", "[CH3]")])
def test_other_molecules_stay_apart(one, other):
    pytest.importorskip("rdkit")
    spelled = canonical_smiles([one, other])
    assert spelled[0] != spelled[1]


def test_a_group_does_not_hide_the_molecule_nor_the_structure():
    pytest.importorskip("rdkit")
    structures = [*apart(5), chain(1.3)]
    groups = ["a", "b", "c", "d", "", ""]
    smiles = ["CCO", "", "OCC", "", "", ""]
    found = duplicate_groups(groups, smiles, structures)
    # 0 and 2 are ethanol; the last is the structure of 1.
    assert found.tolist() == [0, 1, 0, 2, 3, 1]


def test_links_of_different_kinds_are_followed():
    """0 - 1 by molecule, 1 - 2 by group, 2 - 3 by structure."""
    pytest.importorskip("rdkit")
    structures = [chain(1.2), chain(1.3), chain(1.4), chain(1.4), chain(1.6)]
    found = duplicate_groups(["", "g", "g", "h", "i"], ["CN", "NC", "", "", "N"], structures)
    assert found.tolist() == [0, 0, 0, 0, 1]


def test_what_rdkit_cannot_read_is_compared_by_letter_and_told():
    pytest.importorskip("rdkit")
    told: list[str] = []
    found = duplicate_groups([""] * 4, ["x(y", "CC", "x(y", "C-C"], apart(4), tell=told.append)
    assert found.tolist() == [0, 1, 0, 1]
    assert told == [
        "RDKit cannot read 1 of 3 SMILES (first: 'x(y'); they are compared letter by letter"
    ]


def test_without_rdkit_structures_decide(monkeypatch):
    monkeypatch.setitem(sys.modules, "rdkit", None)
    told: list[str] = []
    structures = [chain(1.2), chain(1.2), chain(1.4), chain(1.5)]
    found = duplicate_groups([""] * 4, ["CCO", "OCC", "CN", "CN"], structures, tell=told.append)
    assert found.tolist() == [0, 0, 1, 1]
    (remark,) = told
    assert "RDKit is not installed" in remark


def test_several_processes_spell_alike(monkeypatch):
    pytest.importorskip("rdkit")
    monkeypatch.setattr("deepmd_mft.structures.molecules._PIECE", 2)
    smiles = ["OCC", "", "NC", "C(C)O", "F", "OCC"]
    assert canonical_smiles(smiles, jobs=2) == ["CCO", "", "CN", "CCO", "F", "CCO"]
