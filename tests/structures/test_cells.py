"""Left-handed cells: the same lattice, right-handed."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import ase.build
import numpy as np
from ase.neighborlist import neighbor_list

from deepmd_mft.bridge.neighbours import count_neighbours
from deepmd_mft.inference.predictor import Predictor
from deepmd_mft.structures.cells import left_handed, right_handed
from deepmd_mft.structures.structure_set import StructureSet
from tests.helpers.dp import PROPERTY_NET
from tests.helpers.models import save_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

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


def write_crystals(folder: Path, cells: np.ndarray, coords: np.ndarray) -> None:
    folder.mkdir()
    (folder / "set.000").mkdir()
    (folder / "type.raw").write_text("0\n" * 4 + "1\n" * 4)
    (folder / "type_map.raw").write_text("C\nO\n")
    np.save(folder / "set.000" / "coord.npy", coords.reshape(len(coords), -1))
    np.save(folder / "set.000" / "box.npy", cells.reshape(-1, 9))


def test_predictions_do_not_depend_on_the_hand_of_a_cell(tmp_path: Path) -> None:
    """Users' npy files with left-handed cells; deepmd-kit alone predicts something else."""
    rng = np.random.default_rng(0)
    atoms = ase.build.bulk("CO", "rocksalt", a=5.0, cubic=True)
    order = np.argsort(atoms.numbers, kind="stable")
    coords = atoms.positions[order] + 0.1 * rng.normal(size=(3, 8, 3))
    cells = atoms.cell.array + 0.1 * rng.normal(size=(3, 3, 3))
    write_crystals(tmp_path / "right", cells, coords)
    write_crystals(tmp_path / "left", cells[:, SWAP], coords)
    model = save_checkpoint(tmp_path / "model.pt", type="mft", fitting_net=PROPERTY_NET)
    predictor = Predictor.load(model)
    found = {}
    for name in ("right", "left"):
        batches = predictor.batches(StructureSet(name, [tmp_path / name]))
        found[name] = predictor.predict(batches)["gap"]
    np.testing.assert_allclose(found["left"], found["right"], rtol=1e-9)
    [batch] = batches
    raw = dataclasses.replace(batch, box=cells[:, SWAP].reshape(3, 9))
    assert np.abs(predictor.predict([raw])["gap"] - found["right"]).max() > 1e-6
