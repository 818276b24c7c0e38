"""Systems in HDF5 files: what deepmd-kit reads there, and nothing from outside."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from deepmd.utils.data import DeepmdData

from deepmd_mft.errors import UserError
from deepmd_mft.structures.arrays import open_array, place_of, read_words
from deepmd_mft.structures.npy import System
from deepmd_mft.structures.structure_set import StructureSet
from tests.helpers.systems import as_hdf5, write_system

GAP = np.arange(3.0)[:, None]


@pytest.fixture
def folder(tmp_path):
    return write_system(tmp_path / "m", gap=GAP)


@pytest.fixture
def name(folder, tmp_path):
    return as_hdf5(folder, tmp_path / "m.hdf5")


@pytest.mark.parametrize("whole", [True, False], ids=["file", "group"])
def test_a_set_is_what_it_is_in_folders(folder, name, whole):
    expected = StructureSet("folders", [folder])
    found = StructureSet("groups", [Path(name.partition("#")[0] if whole else name)])
    np.testing.assert_array_equal(found.label("gap"), expected.label("gap"))
    for one, other in zip(found.structures, expected.structures, strict=True):
        np.testing.assert_array_equal(one.numbers, other.numbers)
        np.testing.assert_array_equal(one.positions, other.positions)
    (source,) = found.checksum()
    assert len(source["sha256"]) == 64


def test_parts_are_not_written(name, tmp_path):
    found = StructureSet("groups", [Path(name)])
    with pytest.raises(UserError, match="convert it first"):
        found.write_part(np.array([0]), tmp_path)


@pytest.mark.parametrize("nframes", [1, 3])
def test_frames_are_those_that_deepmd_counts(tmp_path, nframes):
    system = write_system(tmp_path / "s", nframes=nframes)
    path = system / "set.000" / "coord.npy"
    if nframes == 1:
        np.save(path, np.load(path)[0])  # the first axis may be left out
    else:
        as_hdf5(system, tmp_path / "s.hdf5")
    opened = System.open(place_of(str(system)))
    assert opened.nframes(0) == DeepmdData(str(system)).nframes == nframes
    if nframes > 1:
        packed = System.open(place_of(f"{tmp_path}/s.hdf5#/system"))
        assert packed.nframes(0) == DeepmdData(f"{tmp_path}/s.hdf5#/system").nframes == nframes


def test_comments_are_left_out_as_in_deepmd(folder):
    (folder / "type.raw").write_text("# a carbon\n0\n1 # and hydrogens\n1\n1\n1\n")
    np.testing.assert_array_equal(System.open(folder).types, DeepmdData(str(folder)).atom_type)
    (folder / "type_map.raw").write_text("C # carbon\nH\n")
    assert read_words(folder / "type_map.raw") == DeepmdData(str(folder)).type_map == ["C", "H"]


def external(group, other):
    group["set.000/gap.npy"] = h5py.ExternalLink(other.name, "/secret")


def virtual(group, other):
    layout = h5py.VirtualLayout(GAP.shape, "f8")
    layout[:] = h5py.VirtualSource(str(other), "secret", GAP.shape)
    group.create_virtual_dataset("set.000/gap.npy", layout)


def raw_bytes(group, other):
    group.create_dataset("set.000/gap.npy", GAP.shape, "f8", external=[(str(other), 0, 24)])


def huge(group, _other):
    group.create_dataset("set.000/gap.npy", (2**40, 1), "f8")


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (external, "does not exist"),
        (virtual, "in another file"),
        (raw_bytes, "in another file"),
        (huge, "which are not there"),
    ],
)
def test_nothing_is_read_from_outside(name, tmp_path, attack, message):
    other = tmp_path / "other.hdf5"
    with h5py.File(other, "w") as out:
        out["secret"] = GAP
    with h5py.File(tmp_path / "m.hdf5", "a") as file:
        del file["system/set.000/gap.npy"]
        attack(file["system"], other)
    with pytest.raises(UserError, match=message):
        open_array(place_of(name) / "set.000" / "gap.npy")


def test_other_files(tmp_path):
    with h5py.File(tmp_path / "spice.hdf5", "w") as file:
        file["methane/energy"] = GAP
    with pytest.raises(UserError, match="holds no deepmd-kit systems"):
        StructureSet("s", [tmp_path / "spice.hdf5"])
    (tmp_path / "text.hdf5").write_text("nothing")
    with pytest.raises(UserError, match=r"text\.hdf5#/a cannot be read"):
        place_of(f"{tmp_path}/text.hdf5#/a")
    with pytest.raises(UserError, match="cannot be read"):
        place_of(f"{tmp_path}/none.hdf5#/a")
