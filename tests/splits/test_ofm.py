"""Orbital-field matrices against matminer's numbers, and the search for duplicates."""

from __future__ import annotations

import numpy as np
import pytest

from deepmd_mft.errors import UserError
from deepmd_mft.splits import ofm
from deepmd_mft.structures.duplicates import structure_groups


def rock_salt(a=5.64, repeat=1):
    """Primitive or conventional-like cells of the same crystal."""
    cell = a / 2 * (1 - np.eye(3))
    shifts = np.array(list(np.ndindex(repeat, 1, 1))) @ cell
    base = np.array([[0.0, 0, 0], [a / 2] * 3])
    coords = (shifts[:, None] + base).reshape(-1, 3)
    cell[0] *= repeat
    return np.tile([11, 17], repeat), coords, cell


def test_rock_salt_by_hand():
    """Six neighbours of equal solid angle, and nothing from the others."""
    numbers, coords, cell = rock_salt()
    matrix = ofm.orbital_field_matrix(numbers, coords, cell).reshape(32, 32)
    each = 6 / (5.64 / 2) / 1.8897261246
    # Na: s1. Cl: s2 p5. Mean over two sites.
    expected = {(0, 1): 0.5, (0, 6): 0.5, (1, 0): 0.5, (6, 0): 0.5}
    for place, share in expected.items():
        assert matrix[place] == pytest.approx(each * share, rel=1e-6)
    assert np.count_nonzero(abs(matrix) > 1e-9) == 4


def test_matminer_agrees():
    cell = np.array([[3.9, 0, 0], [0.2, 4.0, 0], [-0.3, 0.1, 4.2]])
    fractions = np.array(
        [[0.02, 0, 0.01], [0.5, 0.48, 0.5], [0.5, 0.5, 0.03], [0.47, 0, 0.5], [0, 0.5, 0.52]]
    )
    matrix = ofm.orbital_field_matrix(np.array([20, 14, 8, 8, 8]), fractions @ cell, cell)
    # matminer 0.10.1, OrbitalFieldMatrix().featurize of the same structure.
    matminer = {
        33: 1.3582159359,
        35: 0.2903034931,
        37: 0.718884921,
        97: 0.2968941126,
        101: 0.295639993,
        161: 0.8498756701,
        163: 0.2895634321,
        165: 0.2129193383,
    }
    expected = np.zeros(1024)
    expected[list(matminer)] = list(matminer.values())
    # Its bohr is an older CODATA value.
    np.testing.assert_allclose(matrix, expected, rtol=2e-5, atol=1e-9)


def test_cell_choice_rotation_and_origin_do_not_matter():
    rng = np.random.default_rng(0)
    numbers, coords, cell = rock_salt()
    coords = coords + 0.1 * rng.normal(size=coords.shape)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    one = ofm.orbital_field_matrix(numbers, coords, cell)
    moved = ofm.orbital_field_matrix(numbers[::-1], (coords[::-1] + 7.7) @ turn, cell @ turn)
    doubled = np.concatenate([coords, coords + cell[0]])
    big = cell * np.array([[2], [1], [1]])
    large = ofm.orbital_field_matrix(np.tile(numbers, 2), doubled, big)
    np.testing.assert_allclose(moved, one, atol=1e-9)
    np.testing.assert_allclose(large, one, atol=1e-9)


def test_solid_angles_fill_the_sphere():
    rng = np.random.default_rng(1)
    cell = np.array([[4.0, 0, 0], [1.0, 5.0, 0], [0.3, -1.0, 6.0]])
    coords = rng.uniform(size=(6, 3)) @ cell
    points, _ = ofm._images(coords, cell, 1 / np.linalg.norm(np.linalg.inv(cell), axis=0), 12.0)
    centre, _, angle, _ = ofm._faces(points, 6)
    np.testing.assert_allclose(np.bincount(centre, angle), 4 * np.pi, rtol=1e-9)


def test_many_in_parallel_with_cache(tmp_path):
    structures = [rock_salt(5 + i / 1000) for i in range(ofm._PIECE + 3)]
    first = ofm.orbital_field_matrices(structures, jobs=2, cache=tmp_path)
    assert first.shape == (ofm._PIECE + 3, 1024)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(files) == 2
    second = ofm.orbital_field_matrices(structures, jobs=1, cache=tmp_path)
    np.testing.assert_array_equal(first, second)
    assert files == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    with pytest.raises(UserError, match="need crystals"):
        ofm.orbital_field_matrices([(np.array([1]), np.zeros((1, 3)), None)], jobs=1)


def test_duplicates_of_crystals():
    rng = np.random.default_rng(2)
    numbers, coords, cell = rock_salt()
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    other = np.array([11, 35])
    structures = [
        (numbers, coords, cell),
        (numbers[::-1], (coords[::-1] + 3.3) @ turn, cell @ turn),
        rock_salt(repeat=2),
        rock_salt(a=5.70),
        (other, coords, cell),
        (numbers, coords + 0.001, cell),
    ]
    assert structure_groups(structures).tolist() == [0, 0, 0, 1, 2, 0]


def test_duplicates_of_molecules():
    rng = np.random.default_rng(3)
    coords = rng.normal(size=(9, 3)) * 3
    numbers = np.array([6, 6, 8, 1, 1, 1, 1, 1, 1])
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    stretched = coords.copy()
    stretched[0] += 0.2
    order = rng.permutation(9)
    structures = [
        (numbers, coords, None),
        (numbers, stretched, None),
        (numbers[order], coords[order] @ turn - 5, None),
        (np.array([2]), np.zeros((1, 3)), None),
    ]
    assert structure_groups(structures).tolist() == [0, 1, 0, 2]


def test_slab_in_a_wide_vacuum():
    """Cells of surface atoms reach far into the vacuum; the search must not run away."""
    hexagon = np.array([[2.46, 0, 0], [-1.23, 2.13, 0], [0, 0, 40.0]])
    coords = np.array([[0, 0, 20.0], [0, 1.42, 20.1]])
    centre, _, weight, distance = ofm.neighbours(coords, hexagon)
    assert distance.max() < 41
    assert (weight[centre == 0] > 0.5).sum() >= 2


def cubes(n):
    """Rock salts of ``n`` sizes."""
    return [rock_salt(5 + i / 1000) for i in range(n)]


@pytest.mark.parametrize("how", ["a file", "no permission", "below a file"])
def test_a_cache_that_cannot_be_written_stops_nothing(tmp_path, monkeypatch, how):
    """Neither a folder that cannot be made nor one that cannot be written."""
    cache = tmp_path / "cache"
    if how == "a file":
        cache.touch()
    elif how == "below a file":
        (tmp_path / "file").touch()
        cache = tmp_path / "file" / "cache"
    else:
        # The tests run as root, whom no permission stops.
        def refuse(*args, **kwargs):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(ofm.tempfile, "TemporaryFile", refuse)
    told = []
    found = ofm.orbital_field_matrices(cubes(3), jobs=1, cache=cache, tell=told.append)
    np.testing.assert_array_equal(found, ofm.orbital_field_matrices(cubes(3), jobs=1))
    assert any(f"{cache} cannot be written" in line and "--cache" in line for line in told)


def test_a_cache_that_fills_up_stops_nothing(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ofm.np, "savez_compressed", full)
    told = []
    found = ofm.orbital_field_matrices(cubes(3), jobs=1, cache=tmp_path, tell=told.append)
    assert found.shape == (3, 1024)
    assert told[-1].startswith("some features could not be kept")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["cut", "empty", "other shape", "no archive"])
def test_a_damaged_piece_is_computed_again(tmp_path, damage):
    expected = ofm.orbital_field_matrices(cubes(3), jobs=1, cache=tmp_path)
    (piece,) = tmp_path.iterdir()
    whole = piece.read_bytes()
    if damage == "other shape":
        np.savez_compressed(piece, ofm=np.zeros((2, 1024)))
    else:
        piece.write_bytes({"cut": whole[:-30], "empty": b"", "no archive": b"x" * 99}[damage])
    again = ofm.orbital_field_matrices(cubes(3), jobs=1, cache=tmp_path)
    np.testing.assert_array_equal(again, expected)
    with np.load(piece) as archive:
        np.testing.assert_array_equal(archive["ofm"], expected)


def test_it_says_what_it_does_and_names_what_it_cannot_do(tmp_path):
    told = []
    names = ["a", "b", "c"]
    ofm.orbital_field_matrices(cubes(3), names=names, jobs=2, cache=tmp_path, tell=told.append)
    assert told == [f"orbital-field matrices of 3 structures, 2 processes, kept in {tmp_path}"]
    flat = (np.array([11]), np.zeros((1, 3)), np.diag([3.0, 3.0, 0.0]))
    with pytest.raises(UserError, match=r"orbital-field matrix of c \(row 2\): "):
        ofm.orbital_field_matrices([*cubes(2), flat], names=names, jobs=1)
    molecule = (np.array([1]), np.zeros((1, 3)), None)
    with pytest.raises(UserError, match=r"need crystals; b \(row 1\) is a molecule"):
        ofm.orbital_field_matrices([*cubes(1), molecule], names=names, jobs=1)
    with pytest.raises(UserError, match="--jobs 0"):
        ofm.orbital_field_matrices(cubes(1), jobs=0)


def test_pieces_wait_for_the_processes(monkeypatch):
    """A set need not be in memory at once: it is read as the matrices are done."""
    monkeypatch.setattr(ofm, "_PIECE", 2)
    read, furthest = 0, []
    collect = ofm._collect

    def watched(future, done, bar):
        furthest.append(read - 2 * len(done))
        return collect(future, done, bar)

    def counted():
        nonlocal read
        for structure in cubes(30):
            read += 1
            yield structure

    monkeypatch.setattr(ofm, "_collect", watched)
    found = ofm.orbital_field_matrices(counted(), jobs=1)
    assert len(found) == 30
    assert len(furthest) == 15
    assert max(furthest) <= 2 * 4
