"""Broken and hostile files end in one message that names the file and the row."""

from __future__ import annotations

import os
import pickle
import shutil

import lmdb
import msgpack
import numpy as np
import pytest

from deepmd_mft.cli import main
from deepmd_mft.errors import UserError
from deepmd_mft.structures.structure_set import StructureSet
from tests.helpers.deepmd_data import make_frames, write_lmdb, write_system


class Trap:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def header(shape, descr="<f8", data=b"\0" * 8):
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + data


def npy(array, **keys):
    def write(path, folder):
        np.save(path, array, **keys)

    return write


def raw(content):
    return lambda path, folder: path.write_bytes(content)


def cut(path, folder):
    path.write_bytes(path.read_bytes()[:-3])


def trap(path, folder):
    path.write_bytes(pickle.dumps(Trap(folder / "executed")))


def object_array(path, folder):
    np.save(path, np.array([Trap(folder / "executed")] * 4, dtype=object), allow_pickle=True)


BROKEN = {
    "pickle": trap,
    "objects": object_array,
    "text": npy(np.array(["a", "b", "c", "d"])),
    "complex": npy(np.array([1j] * 4)),
    "cut off": cut,
    "empty": raw(b""),
    "terabytes": raw(header((10**12, 12))),
    "more than there are": raw(header((10**30,))),
    "negative": raw(header((-1, 12))),
    "fields": raw(header((4,), [("a", "<f8"), ("b", "<i4")])),
    "nested": raw(b"\x93NUMPY\x02\x00\x00\x20\x00\x00" + b"(" * 8192),
    "deep": raw(b"\x93NUMPY\x02\x00\x00\x20\x00\x00" + b"-" * 8191 + b"1"),
    "other rows": npy(np.zeros((5, 12))),
}


@pytest.mark.parametrize("name", ["gap", "coord", "box", "real_atom_types"])
@pytest.mark.parametrize("how", BROKEN)
def test_arrays(name, how, tmp_path):
    write_system(tmp_path / "set", [make_frames(4, periodic=True)], mixed=True)
    path = tmp_path / "set" / "set.000" / f"{name}.npy"
    BROKEN[how](path, tmp_path)
    with pytest.raises(UserError, match=rf"set.000/?(, frame 0|.*{name}.npy)"):
        use(StructureSet("set", [tmp_path / "set"]))
    assert not (tmp_path / "executed").exists()


def use(structures):
    structures.labels("gap", 1)
    list(structures)
    structures.checksum()


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("coord", lambda a: a.__setitem__((2, 0), np.nan), "frame 2 has coordinates that are NaN"),
        ("box", lambda a: a.__setitem__(1, 0.0), "frame 1 has a cell without volume"),
        ("box", lambda a: a.__setitem__((3, 4), np.inf), "frame 3 has a cell without volume"),
        ("real_atom_types", lambda a: a.__setitem__((1, 0), 99), "frame 1 has an atom of type 99"),
        ("real_atom_types", lambda a: a.__setitem__((1, 0), -2), "frame 1 has an atom of type -2"),
        ("real_atom_types", lambda a: a.__setitem__(2, -1), "frame 2 has no atoms"),
    ],
)
def test_values(name, change, expected, tmp_path):
    write_system(tmp_path / "set", [make_frames(4, periodic=True)], mixed=True)
    path = tmp_path / "set" / "set.000" / f"{name}.npy"
    array = np.load(path)
    change(array)
    np.save(path, array)
    with pytest.raises(UserError, match=expected):
        use(StructureSet("set", [tmp_path / "set"]))


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("type.raw", "0 1 x 2", "type.raw is no list of numbers"),
        ("type.raw", "", "type.raw must hold the type of every atom"),
        ("type.raw", "0 1 2 -1", "type.raw must hold the type of every atom"),
        ("type.raw", "0 0 0", "type.raw lists 3 atoms, so 9 numbers"),
        ("type.raw", "0 0 0 7", "frame 0 has an atom of type 7, but the type map has 3"),
        ("type_map.raw", "X X X", "frame 0 has an atom called 'X', which is no chemical element"),
    ],
)
def test_texts(file, content, expected, tmp_path):
    write_system(tmp_path / "set", [make_frames(2)])
    (tmp_path / "set" / file).write_text(content)
    with pytest.raises(UserError, match=expected):
        use(StructureSet("set", [tmp_path / "set"]))


def test_a_name_that_is_no_element_may_be_in_the_type_map(tmp_path):
    write_system(tmp_path / "set", [make_frames(2)])
    with (tmp_path / "set" / "type_map.raw").open("a") as handle:
        handle.write("X\n")
    use(StructureSet("set", [tmp_path / "set"]))


def change_record(folder, number, change):
    key = format(number, "012d").encode() if isinstance(number, int) else number
    with lmdb.open(str(folder)) as environment, environment.begin(write=True) as transaction:
        content = change(msgpack.unpackb(transaction.get(key)))
        packed = content if isinstance(content, bytes) else msgpack.packb(content)
        transaction.put(key, packed)


def array(values, **keys):
    values = np.asarray(values)
    own = {"type": str(values.dtype), "shape": list(values.shape), "data": values.tobytes()}
    return {**own, **keys}


RECORDS = {
    "no msgpack": (lambda r: b"\xc1", "cannot be decoded"),
    "cut off": (lambda r: msgpack.packb(r)[:-4], "cannot be decoded"),
    "a list": (lambda r: [1, 2], "cannot be decoded"),
    "no coords": (lambda r: {k: v for k, v in r.items() if k != "coords"}, "has no coord; it has"),
    "no types": (lambda r: {k: v for k, v in r.items() if k != "atom_types"}, "has no atype"),
    "type 99": (lambda r: {**r, "atom_types": array([99, 0, 0, 0])}, "an atom of type 99, but"),
    "type -3": (lambda r: {**r, "atom_types": array([-3, 0, 0, 0])}, "an atom of type -3, but"),
    "half a type": (lambda r: {**r, "atom_types": array([0.5, 0, 0, 0])}, "not numbers of types"),
    "too few": (lambda r: {**r, "atom_types": array([0, 0])}, "has 2 atom types and 4 coords"),
    "objects": (lambda r: {**r, "coords": array(np.zeros(12), type="O")}, "cannot be decoded"),
    "texts": (lambda r: {**r, "coords": array(["a"] * 12)}, "coord is no array of numbers"),
    "shape": (lambda r: {**r, "coords": array(np.zeros(12), shape=[9, 9])}, "cannot be decoded"),
    "terabytes": (lambda r: {**r, "coords": array([0.0], shape=[10**12, 3])}, "cannot be decoded"),
    "eleven": (lambda r: {**r, "coords": array(np.zeros(11))}, "coord is no array of numbers of"),
    "NaN": (lambda r: {**r, "coords": array(np.full(12, np.nan))}, "coordinates that are NaN"),
    "cell": (lambda r: {**r, "cells": array(np.ones(4))}, "box is no array of numbers"),
    "flat": (lambda r: {**r, "cells": array(np.ones(9))}, "has a cell without volume"),
    "word": (lambda r: {**r, "gap": "large"}, "gap is not a number"),
}


@pytest.mark.parametrize("how", RECORDS)
def test_records(how, tmp_path):
    write_lmdb(tmp_path / "set.lmdb", make_frames(4))
    change, expected = RECORDS[how]
    change_record(tmp_path / "set.lmdb", 2, change)
    with pytest.raises(UserError, match=rf"set.lmdb, record 000000000002.*{expected}"):
        use(StructureSet("set", [tmp_path / "set.lmdb"]))


METADATA = {
    "no msgpack": lambda m: b"\xc1",
    "a number": lambda m: 7,
    "no nframes": lambda m: {k: v for k, v in m.items() if k != "nframes"},
    "too many": lambda m: {**m, "nframes": 10**12},
    "a text": lambda m: {**m, "nframes": "4"},
    "a format that fills the memory": lambda m: {**m, "frame_idx_fmt": "09999999999d"},
    "numbers": lambda m: {**m, "type_map": [1, 2, 3]},
    "few counts": lambda m: {**m, "frame_nlocs": [4]},
}


@pytest.mark.parametrize("how", METADATA)
def test_metadata(how, tmp_path):
    write_lmdb(tmp_path / "set.lmdb", make_frames(4))
    change_record(tmp_path / "set.lmdb", b"__metadata__", METADATA[how])
    with pytest.raises(UserError, match="__metadata__ is damaged"):
        StructureSet("set", [tmp_path / "set.lmdb"])


def test_a_cut_off_lmdb(tmp_path):
    write_lmdb(tmp_path / "set.lmdb", make_frames(200, 30))
    path = tmp_path / "set.lmdb" / "data.mdb"
    path.write_bytes(path.read_bytes()[: 3 * 4096])
    with pytest.raises(UserError, match=r"data\.mdb is cut off"):
        StructureSet("set", [tmp_path / "set.lmdb"])
    path.write_bytes(b"")
    with pytest.raises(UserError, match="cannot be read as LMDB"):
        StructureSet("set", [tmp_path / "set.lmdb"])
    path.unlink()
    with pytest.raises(UserError, match=r"has no data\.mdb"):
        StructureSet("set", [tmp_path / "set.lmdb"])


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (",1\n", ",9\n", "names frame 9 of system '4', which is not there"),
        (",1\n", ",0\n", "names frame 0 of system '4' twice"),
        (",4,1\n", ",../4,1\n", "does not lie below"),
        (",4,1\n", ",5,1\n", "names frame 1 of system '5', which is not there"),
        (",4,1\n", ",4\n", "line 3: 6 fields instead of 7"),
        (",4,1\n", ",4,one\n", "'one' is not a row number"),
        ("2,m2,,,2,4,2\n", "", "lists 2 rows, but the systems hold 3 frames"),
    ],
)
def test_tables(old, new, expected, tmp_path):
    write_system(tmp_path / "set" / "4", [make_frames(3)])
    table = "row,id,smiles,group,source_row,system,frame\n" + "".join(
        f"{i},m{i},,,{i},4,{i}\n" for i in range(3)
    )
    (tmp_path / "set" / "rows.csv").write_text(table)
    assert StructureSet("set", [tmp_path / "set"]).ids == ["m0", "m1", "m2"]
    (tmp_path / "set" / "rows.csv").write_text(table.replace(old, new))
    with pytest.raises(UserError, match=expected):
        StructureSet("set", [tmp_path / "set"])


def test_names_stay_text(tmp_path):
    write_system(tmp_path / "29" / "007", [make_frames(3)])
    (tmp_path / "29" / "rows.csv").write_text(
        "row,id,smiles,group,source_row,system,frame\n"
        "0,001,,01,0,007,0\n1,1e3,,NA,1,007,1\n2,None,,1,2,007,2\n"
    )
    whole = StructureSet("29", [tmp_path / "29"])
    assert whole.ids == ["001", "1e3", "None"]
    assert whole.rows.groups == ["01", "NA", "1"]
    (tmp_path / "part").mkdir()
    whole.write_part(np.array([0, 1]), tmp_path / "part")
    assert StructureSet("part", [tmp_path / "part"]).ids == ["001", "1e3"]


def test_nothing_but_the_set_is_copied(tmp_path):
    write_system(tmp_path / "set" / "a", [make_frames(3)])
    secret = tmp_path / "secret"
    secret.write_text("H C O")
    (tmp_path / "set" / "a" / "notes.txt").symlink_to(secret)
    (tmp_path / "part").mkdir()
    StructureSet.open(tmp_path / "set").write_part(np.array([0]), tmp_path / "part")
    names = {path.name for path in (tmp_path / "part" / "a").iterdir()}
    assert names == {"type.raw", "type_map.raw", "nopbc", "set.000"}
    (tmp_path / "set" / "a" / "type_map.raw").unlink()
    (tmp_path / "set" / "a" / "type_map.raw").symlink_to(secret)
    shutil.rmtree(tmp_path / "part")
    (tmp_path / "part").mkdir()
    with pytest.raises(UserError, match="link to a file outside its system"):
        StructureSet.open(tmp_path / "set").write_part(np.array([0]), tmp_path / "part")


@pytest.mark.parametrize("how", ["pickle", "cut off", "text", "terabytes"])
def test_split_tells_it(how, tmp_path, capsys):
    write_system(tmp_path / "set", [make_frames(20)])
    BROKEN[how](tmp_path / "set" / "set.000" / "gap.npy", tmp_path)
    arguments = [str(tmp_path / "set"), str(tmp_path / "out"), "--quiet"]
    assert main(["split", "random", *arguments]) == 1
    assert "set.000/gap.npy" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["pipe", "folder", "broken link"])
@pytest.mark.parametrize("name", ["gap", "coord", "fparam"])
def test_what_is_called_an_array_and_is_no_file(tmp_path, kind, name):
    """A pipe would be waited for, a folder ended evaluate in a traceback."""
    path = write_system(tmp_path / "m", [make_frames(3)]) / "set.000" / f"{name}.npy"
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=rf"{name}\.npy is no file"):
        StructureSet("m", [tmp_path / "m"])


def test_coordinates_without_sense(tmp_path):
    """So large that all structures were taken for one, and split found nothing to divide."""
    path = write_system(tmp_path / "m", [make_frames(3)]) / "set.000" / "coord.npy"
    np.save(path, np.full_like(np.load(path), 1e300))
    with pytest.raises(UserError, match=r"frame 0 has a coordinate of 1e\+300 Angstrom"):
        _ = StructureSet("m", [tmp_path / "m"]).structures
