"""How far a test structure is from training does not depend on how it is written down."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.transform import Rotation

from deepmd_mft.report.distance import StructuralDistances, by_distance, fingerprints
from deepmd_mft.structures.structure import Structure
from deepmd_mft.structures.structure_set import StructureSet
from tests.helpers.dp import DATA


@pytest.fixture(scope="module")
def molecules():
    return StructureSet("valid", [DATA / "valid"])


def test_rotation_order_and_place_do_not_matter(molecules):
    rng = np.random.default_rng(0)
    turned = Rotation.random(random_state=0).as_matrix()
    moved = []
    for one in molecules.structures[:5]:
        order = rng.permutation(len(one.numbers))
        moved.append(Structure(one.numbers[order], (one.positions @ turned + 3.0)[order]))
    a, b = (
        fingerprints(molecules).toarray()[:5],
        fingerprints(StructureSet.of("moved", moved)).toarray(),
    )
    np.testing.assert_allclose(a, b, atol=1e-5)
    assert np.linalg.norm(a[0] - a[1]) > 0.1


def test_a_supercell_is_the_same_crystal():
    cell = np.eye(3) * 4.0
    unit = Structure(np.array([55, 17]), np.array([[0.0, 0, 0], [2.0, 2, 2]]), cell)
    double = Structure(
        np.tile(unit[0], 2),
        np.concatenate([unit[1], unit[1] + [4.0, 0, 0]]),
        cell * [[2], [1], [1]],
    )
    one, two = fingerprints(StructureSet.of("crystals", [unit, double])).toarray()
    np.testing.assert_allclose(one, two, atol=1e-12)


def test_bins():
    run = SimpleNamespace(
        folder=SimpleNamespace(name="a"),
        strategy="ft",
        classes=False,
        predictions=pd.DataFrame({"label": np.zeros(30)}),
        losses=lambda: np.repeat([1.0, 4.0, 81.0], 10),
    )
    distance = np.repeat([0.5, 1.5, np.nan], 10)
    table = by_distance([run, run], [distance, None], np.array([0.0, 1.0]))
    assert list(table["rmse"]) == [1.0, 2.0]
    assert list(table["distance_to"]) == [1.0, np.inf]
    assert list(table["structures"]) == [10, 10]


def test_distance_to_the_training_set(monkeypatch):
    def run(*sets):
        folders = {name: {"folders": [{"path": str(DATA / name)}]} for name in sets}
        frames = sum(len(StructureSet(name, [DATA / name])) for name in sets)
        return SimpleNamespace(
            record={"sets": folders},
            training=SimpleNamespace(systems=[DATA / "train"]),
            type_map=("H", "C", "N", "O", "F"),
            predictions=pd.DataFrame({"label": np.zeros(frames)}),
        )

    structural = StructuralDistances()
    np.testing.assert_allclose(structural.of(run("train")), 0.0, atol=1e-6)
    distance = structural.of(run("train", "valid"))
    ntrain = len(StructureSet("train", [DATA / "train"]))
    assert 0.8 < np.median(distance[ntrain:]) < 1.3  # valid is drawn like train
    monkeypatch.setattr("deepmd_mft.report.distance.REFERENCE", 100)
    few = StructuralDistances().of(run("train", "valid"))  # none: the draw was taken for the set
    assert len(few) == len(distance)
    moved = run("train")
    moved.training.systems = [DATA / "nowhere"]
    assert structural.of(moved) is None
