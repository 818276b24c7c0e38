"""Every layout reads back as the arrays that were written, and as deepmd-kit reads it."""

from __future__ import annotations

import numpy as np
import pytest
from deepmd.dpmodel.utils.lmdb_data import LmdbDataReader
from deepmd.utils.data import DeepmdData
from deepmd.utils.data_system import process_systems

from deepmd_mft.errors import UserError
from deepmd_mft.structures.structure_set import StructureSet
from tests.helpers.deepmd_data import (
    LAYOUTS,
    NUMBERS,
    TYPE_MAP,
    make_frames,
    write_layout,
    write_system,
)

NAMES = {"energy": 1, "gap": 1, "pair": 2, "fparam": 2}


def by_hand(frames, name, width):
    gap = np.full(width, np.nan)
    return np.array([gap if f.labels[name] is None else f.labels[name] for f in frames])


def assert_equal(structures, frames):
    structures = structures.with_type_map(TYPE_MAP)
    assert len(structures) == len(frames)
    for one, frame in zip(structures, frames, strict=True):
        np.testing.assert_array_equal(one.numbers, NUMBERS[frame.types])
        np.testing.assert_array_equal(one.positions, frame.coord)
        assert (one.cell is None) == (frame.box is None)
        if frame.box is not None:
            np.testing.assert_array_equal(one.cell, frame.box)
    for name, width in NAMES.items():
        found, expected = structures.labels(name, width), by_hand(frames, name, width)
        if found is None:
            found = np.full_like(expected, np.nan)
        np.testing.assert_array_equal(found, expected)
    forces = {
        int(row): values
        for _, rows, block in structures.label_blocks("force")
        for row, values in zip(rows, block, strict=True)
    }
    for row, frame in enumerate(frames):
        assert (row in forces) == (frame.labels["force"] is not None)
        if row in forces:
            np.testing.assert_array_equal(forces[row], frame.labels["force"])


@pytest.mark.parametrize("kind", LAYOUTS)
def test_reads_what_was_written(kind, tmp_path):
    frames = write_layout(kind, tmp_path / "set")
    whole = StructureSet("set", [tmp_path / "set"])
    assert_equal(whole, frames)
    rows = np.array([0, 2, len(frames) - 1])
    assert_equal(whole.take(rows), [frames[row] for row in rows])


@pytest.mark.parametrize("kind", LAYOUTS)
def test_a_part_is_the_same_rows(kind, tmp_path):
    frames = write_layout(kind, tmp_path / "set")
    rows = np.array([0, 1, 3, len(frames) - 1])
    (tmp_path / "part").mkdir()
    StructureSet.open(tmp_path / "set").write_part(rows, tmp_path / "part")
    part = StructureSet.open(tmp_path / "part")
    assert part.rows.source_rows.tolist() == rows.tolist()
    assert_equal(part, [frames[row] for row in rows])
    again = tmp_path / "again"
    again.mkdir()
    part.write_part(np.arange(4), again)
    assert_equal(StructureSet.open(again), [frames[row] for row in rows])


@pytest.mark.parametrize("kind", [k for k in LAYOUTS if not k.startswith("lmdb")])
def test_reads_what_deepmd_kit_reads(kind, tmp_path):
    write_layout(kind, tmp_path / "set")
    seen = StructureSet("set", [tmp_path / "set"]).with_type_map(TYPE_MAP)
    theirs = []
    for system in sorted(process_systems(str(tmp_path / "set"))):
        data = DeepmdData(system, type_map=TYPE_MAP, sort_atoms=False)
        for name, width in NAMES.items():
            data.add(name, width, must=False, default=np.nan)
        theirs += [data.get_single_frame(row, 1) for row in range(data.nframes)]
    assert len(theirs) == len(seen)
    labels = {name: seen.labels(name, width) for name, width in NAMES.items()}
    for row, (one, frame) in enumerate(zip(seen, theirs, strict=True)):
        real = frame["type"] >= 0
        np.testing.assert_array_equal(one.numbers, NUMBERS[frame["type"][real]])
        np.testing.assert_array_equal(one.positions, frame["coord"].reshape(-1, 3)[real])
        if one.cell is not None:
            np.testing.assert_array_equal(one.cell, frame["box"].reshape(3, 3))
        for name, values in labels.items():
            mine = np.full(NAMES[name], np.nan) if values is None else values[row]
            np.testing.assert_array_equal(mine, frame[name])


@pytest.mark.parametrize("kind", [k for k in LAYOUTS if k.startswith("lmdb")])
def test_reads_what_deepmd_kit_reads_from_lmdb(kind, tmp_path):
    write_layout(kind, tmp_path / "set")
    reader = LmdbDataReader(str(tmp_path / "set"), TYPE_MAP)  # open at the same time
    seen = StructureSet("set", [tmp_path / "set"])
    assert len(reader) == len(seen)
    labels = {name: seen.labels(name, width) for name, width in NAMES.items()}
    for row, one in enumerate(seen):
        frame = reader[row]
        np.testing.assert_array_equal(one.numbers, NUMBERS[frame["atype"]])
        np.testing.assert_array_equal(one.positions, frame["coord"])
        if one.cell is not None:
            np.testing.assert_array_equal(one.cell, frame["box"].reshape(3, 3))
        for name, values in labels.items():
            if frame.get(f"find_{name}", 0.0):
                np.testing.assert_array_equal(values[row], frame[name].reshape(-1))
            else:
                assert np.isnan(values[row]).all()


def test_forces_of_a_part_stay_absent_where_they_are(tmp_path):
    """A property is NaN where it is missing; NaN forces would spoil a training of deepmd-kit's."""
    write_layout("label missing in a set", tmp_path / "set")
    (tmp_path / "part").mkdir()
    StructureSet.open(tmp_path / "set").write_part(np.arange(5), tmp_path / "part")
    forces = [np.load(path) for path in sorted((tmp_path / "part").glob("set.*/force.npy"))]
    assert [len(one) for one in forces] == [3]
    assert np.isfinite(forces[0]).all()


def test_one_property_missing_in_a_set_is_nan_in_the_part(tmp_path):
    frames = make_frames(5)
    for frame in frames[:2]:
        frame.labels["gap"] = None
    write_system(tmp_path / "set", [frames[:2], frames[2:]])
    (tmp_path / "part").mkdir()
    StructureSet.open(tmp_path / "set").write_part(np.array([0, 3, 4]), tmp_path / "part")
    [path] = (tmp_path / "part").rglob("gap.npy")
    expected = [np.nan, frames[3].labels["gap"][0], frames[4].labels["gap"][0]]
    np.testing.assert_array_equal(np.load(path)[:, 0], expected)


def test_a_label_of_two_widths_is_told_and_kept_apart(tmp_path):
    frames = make_frames(4)
    for frame in frames[2:]:
        frame.labels["gap"] = np.array([1.0, 2.0])
    write_system(tmp_path / "set", [frames[:2], frames[2:]])
    whole = StructureSet.open(tmp_path / "set")
    with pytest.raises(UserError, match=r"'gap' has 2 columns .*set:2.* 1 in others"):
        whole.labels("gap")
    (tmp_path / "part").mkdir()
    whole.write_part(np.array([1, 3]), tmp_path / "part")
    found = [np.load(path) for path in sorted((tmp_path / "part").glob("set.*/gap.npy"))]
    np.testing.assert_array_equal(found[0], [frames[1].labels["gap"]])
    np.testing.assert_array_equal(found[1], [[1.0, 2.0]])


def test_labels_of_other_shapes(tmp_path):
    frames = make_frames(3)
    write_system(tmp_path / "set", [frames])
    path = tmp_path / "set" / "set.000" / "gap.npy"
    expected = np.load(path)
    for shape in ((3,), (1, 3), (3, 1, 1)):
        np.save(path, expected.reshape(shape))
        found = StructureSet("set", [tmp_path / "set"]).labels("gap", 1)
        np.testing.assert_array_equal(found, expected)
    np.save(path, np.zeros(4))
    with pytest.raises(UserError, match=r"gap.npy has the shape \(4,\), but the set has 3 frames"):
        StructureSet("set", [tmp_path / "set"]).labels("gap", 1)


def test_types_without_names(tmp_path):
    frames = write_layout("no type map", tmp_path / "set")
    unnamed = StructureSet("set", [tmp_path / "set"])
    assert unnamed.label("gap").tolist() == [f.labels["gap"][0] for f in frames]
    with pytest.raises(UserError, match=r"has no type_map\.raw.*one per line"):
        unnamed.structures  # noqa: B018
    with pytest.raises(UserError, match=r"atom of type 2, but the type map has 2 \(H C\)"):
        unnamed.with_type_map(["H", "C"]).structures  # noqa: B018
    [batch] = unnamed.batches(["O", "H", "C"])  # as deepmd-kit: the numbers are the model's
    np.testing.assert_array_equal(batch.atype[0], frames[0].types)
