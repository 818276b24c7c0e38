"""What is a set and what is a folder of sets."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from deepmd_mft.errors import UserError
from deepmd_mft.structures.structure_set import StructureSet, find_sets
from tests.helpers.deepmd_data import make_frames, write_lmdb, write_system


def sizes(*folders, **keys):
    return {one.name: len(one) for one in find_sets(list(folders), **keys)}


@pytest.fixture
def published(tmp_path):
    """The layout of the MFT paper: a folder for each number of atoms."""
    for name, numbers in {"train": (4, 5), "id_test": (4, 5), "ood_test": (5,)}.items():
        for natoms in numbers:
            frames = make_frames(3, natoms, seed=natoms + len(name))
            write_system(tmp_path / name / str(natoms), [frames])
    return tmp_path


def test_a_folder_of_systems_is_one_set(published):
    assert sizes(published / "id_test", published / "ood_test") == {"id_test": 6, "ood_test": 3}
    [one] = find_sets([published / "id_test"])
    assert one.ids == ["4:0", "4:1", "4:2", "5:0", "5:1", "5:2"]


def test_a_folder_of_sets_is_its_sets(published):
    write_system(published / "aux_train", [make_frames(2)])
    write_lmdb(published / "id_lmdb", make_frames(7))
    everything = {"id_lmdb": 7, "id_test": 6, "ood_test": 3, "train": 6}
    assert sizes(published) == everything
    assert sizes(published, chosen=["aux_train"]) == {"aux_train": 2}
    with pytest.raises(UserError, match="no set 'x'; there are"):
        find_sets([published], ["x"])
    with pytest.raises(UserError, match="two sets are called train"):
        find_sets([published, published / "train"])


def test_other_names_are_systems_unless_asked_for(tmp_path):
    for name in ("benzene", "C2H6O", "idle"):
        write_system(tmp_path / "data" / name, [make_frames(2)])
    assert sizes(tmp_path / "data") == {"data": 6}
    assert sizes(tmp_path / "data", chosen=["benzene"]) == {"benzene": 2}


def test_converted_sets_of_any_name(tmp_path):
    for name in ("a", "29"):
        write_system(tmp_path / "sets" / name / "4", [make_frames(2)])
        (tmp_path / "sets" / name / "rows.csv").write_text(
            "row,id,smiles,group,source_row,system,frame\n0,x,,,0,4,0\n1,y,,,1,4,1\n"
        )
    assert sizes(tmp_path / "sets") == {"29": 2, "a": 2}


def test_several_splits_are_not_pooled(published, tmp_path_factory):
    splits = tmp_path_factory.mktemp("splits")
    shutil.copytree(published, splits / "fold_00")
    with pytest.raises(UserError, match=r"holds several splits \(fold_00, ...\)"):
        find_sets([splits])


def test_a_linked_folder_counts_as_in_deepmd_kit(tmp_path):
    write_system(tmp_path / "elsewhere" / "5", [make_frames(3, 5)])
    write_system(tmp_path / "id_test" / "4", [make_frames(2, 4)])
    (tmp_path / "id_test" / "5").symlink_to(tmp_path / "elsewhere" / "5")
    (tmp_path / "split").mkdir()
    (tmp_path / "split" / "id_test").symlink_to(tmp_path / "id_test")
    assert sizes(tmp_path / "id_test") == {"id_test": 5}
    assert sizes(tmp_path / "split") == {"id_test": 5}


def test_nothing(tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "none"):
        with pytest.raises(UserError, match=r"no deepmd-kit systems|is not a folder"):
            find_sets([tmp_path / folder])
    write_system(tmp_path / "s", [make_frames(1)])
    shutil.rmtree(tmp_path / "s" / "set.000")
    with pytest.raises(UserError, match=r"has a type\.raw, but no set"):
        StructureSet("s", [tmp_path / "s"])


def test_a_system_knows_the_table_of_its_set(tmp_path):
    """An input lists the systems; names, groups and units are in the set's own files."""
    for natoms in (4, 5):
        write_system(tmp_path / "train" / str(natoms), [make_frames(2, natoms)])
    (tmp_path / "train" / "rows.csv").write_text(
        "row,id,smiles,group,source_row,system,frame\n"
        "0,a,C,g,0,5,1\n1,b,CC,,1,4,0\n2,c,,,2,5,0\n3,d,,h,3,4,1\n"
    )
    (tmp_path / "train" / "dataset.json").write_text('{"units": {"gap": "eV"}}')
    one = StructureSet("five", [tmp_path / "train" / "5"])
    assert (one.ids, one.rows.smiles, one.units) == (["a", "c"], ["C", ""], {"gap": "eV"})
    np.testing.assert_array_equal(one.natoms, [5, 5])
    both = StructureSet("both", [tmp_path / "train" / "5", tmp_path / "train" / "4"])
    whole = StructureSet("train", [tmp_path / "train"])
    assert both.ids == whole.ids == ["a", "b", "c", "d"]
    np.testing.assert_array_equal(both.label("gap"), whole.label("gap"))
    (tmp_path / "rows.csv").write_text("name,price\nmilk,1\n")  # somebody else's
    shutil.copytree(tmp_path / "train" / "4", tmp_path / "4")
    assert StructureSet("4", [tmp_path / "4"]).ids == ["4:0", "4:1"]


def test_two_units_of_one_label_are_refused(tmp_path):
    for name, unit in (("a", "eV"), ("b", "Hartree")):
        write_system(tmp_path / name / "4", [make_frames(2)])
        (tmp_path / name / "dataset.json").write_text(f'{{"units": {{"gap": "{unit}"}}}}')
        rows = "row,id,smiles,group,source_row,system,frame\n0,x,,,0,4,0\n1,y,,,1,4,1\n"
        (tmp_path / name / "rows.csv").write_text(rows)
    with pytest.raises(UserError, match=r"gap is in Hartree in .*b, but in eV elsewhere"):
        StructureSet("both", [tmp_path / "a", tmp_path / "b"]).units  # noqa: B018


def test_a_set_is_the_same_wherever_it_lies(tmp_path, monkeypatch):
    write_system(tmp_path / "here" / "4", [make_frames(3)])
    shutil.copytree(tmp_path / "here", tmp_path / "there" / "moved")
    monkeypatch.chdir(tmp_path)
    here, there = (StructureSet("x", [Path(p)]).checksum()[0] for p in ("here", "there/moved"))
    assert here["sha256"] == there["sha256"]
    assert (here["path"], there["path"]) == ("here", "there/moved")
    gap = next((tmp_path / "there").rglob("gap.npy"))
    np.save(gap, np.load(gap) + 1.0)
    assert StructureSet("x", [Path("there/moved")]).checksum()[0]["sha256"] != here["sha256"]
