"""`dp-mft convert --group-key` and `split`: structures that have one value together."""

import csv

import numpy as np
import pytest
from ase import Atoms
from ase.build import fcc111, molecule
from ase.io import write

from deepmd_mft.cli import main
from deepmd_mft.structures.pooling import Pooling
from deepmd_mft.structures.structure_set import StructureSet
from tests.helpers.conversion import convert

RNG = np.random.default_rng(0)


def moved(name: str) -> Atoms:
    atoms = molecule(name)
    atoms.rattle(0.05, rng=RNG)
    return atoms


def nearest(folder) -> float:
    """Return the smallest distance of two atoms, virtual ones among them."""
    found = []
    for one in folder.glob("*/set.000"):
        types = np.load(one / "real_atom_types.npy")
        boxes = np.load(one / "box.npy") if (one / "box.npy").exists() else [None] * len(types)
        for coord, box in zip(np.load(one / "coord.npy"), boxes, strict=True):
            cell = None if box is None else box.reshape(3, 3)
            atoms = Atoms(
                f"H{types.shape[1]}", coord.reshape(-1, 3), cell=cell, pbc=box is not None
            )
            distances = atoms.get_all_distances(mic=box is not None)
            found.append(distances[np.triu_indices(len(atoms), k=1)].min())
    return min(found)


@pytest.fixture
def table(tmp_path):
    """A writer of a table of structures: name, group, value."""

    def made(rows):
        lines = ["file,name,group,gap"]
        for number, (atoms, group, gap) in enumerate(rows):
            write(tmp_path / f"{number}.xyz", atoms, format="extxyz")
            lines.append(f"{number}.xyz,s{number},{group},{gap}")
        (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
        return tmp_path / "table.csv"

    return made


OPTIONS = ("--property", "gap=gap:eV", "--id-key", "name", "--group-key", "group")


def test_a_group_is_one_system_whatever_its_sizes(table, tmp_path):
    rows = [
        (moved("CH4"), "a", 1.5),
        (moved("C2H6"), "b", 2.5),
        (moved("C2H6"), "a", ""),  # the value of the group
        (moved("H2O"), "", 3.5),  # a group of its own
        (moved("H2O"), "", 4.5),
    ]
    summary = convert(table(rows), tmp_path / "out", *OPTIONS)
    assert (summary["structures"], summary["groups"]) == (5, 4)
    assert summary["labels"]["gap"]["structures"] == 4
    assert summary["labels"]["gap"]["mean"] == pytest.approx(3.0)
    pooling = Pooling(StructureSet.open(tmp_path / "out"))
    assert pooling.structures.ids == ["a", "b", "s3", "s4"]
    assert pooling.structures.labels("gap")[:, 0].tolist() == [1.5, 2.5, 3.5, 4.5]
    by_name = dict(zip(pooling.frames.ids, pooling.frames, strict=True))
    for number, (atoms, *_) in enumerate(rows):
        np.testing.assert_allclose(by_name[f"s{number}"].positions, atoms.positions, atol=1e-6)
        np.testing.assert_array_equal(by_name[f"s{number}"].numbers, atoms.numbers)
    with (tmp_path / "out" / "rows.csv").open() as handle:
        systems = {row["id"]: row["system"] for row in csv.DictReader(handle)}
    assert systems["s0"] == systems["s2"]  # methane filled up to ethane
    assert nearest(tmp_path / "out") > 0.5


def test_terminations_of_a_slab(tmp_path):
    slabs = []
    for layers in (2, 3, 3):
        slab = fcc111("Cu", (1, 1, layers), vacuum=8.0)
        slab.pbc = True
        slab.rattle(0.02, rng=RNG)
        slab.info |= {"slab": "Cu", "work": 4.9}
        slabs.append(slab)
    slabs[2].info |= {"slab": "other", "work": 4.5}
    write(tmp_path / "slabs.extxyz", slabs)
    options = ("--property", "work=work:eV", "--group-key", "slab")
    summary = convert(tmp_path / "slabs.extxyz", tmp_path / "out", *options)
    assert (summary["periodic"], summary["groups"]) == (3, 2)
    labels = Pooling(StructureSet.open(tmp_path / "out")).structures.labels("work")
    assert labels[:, 0].tolist() == [4.9, 4.5]
    assert nearest(tmp_path / "out") > 0.5


@pytest.mark.parametrize(
    ("rows", "out", "message"),
    [
        (
            [(moved("CH4"), "a", 1.0), (moved("CH4"), "a", 1.1)],
            "out",
            "group 'a': gap of s0 and s1 differs (1 and 1.1), but a group has one value",
        ),
        (
            [(moved("CH4"), "a", 1.0), (Atoms("Ar", cell=[5] * 3, pbc=True), "a", 1.0)],
            "out",
            "group 'a': one of s0 and s1 is periodic, the other is a molecule",
        ),
        ([(moved("CH4"), "a", 1.0)], "out.lmdb", "labels of groups are not written as LMDB"),
    ],
    ids=["values", "periodicity", "lmdb"],
)
def test_what_is_no_group_is_refused(table, tmp_path, capsys, rows, out, message):
    assert main(["convert", str(table(rows)), str(tmp_path / out), *OPTIONS]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / out).exists()


def test_a_column_that_is_not_there_is_named(table, tmp_path, capsys):
    rows = [(moved("CH4"), "a", 1.0)]
    options = ("--property", "gap=gap:eV", "--group-key", "molecule")
    assert main(["convert", str(table(rows)), str(tmp_path / "out"), *options]) == 1
    assert "no column 'molecule'; there are file, name, group, gap" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("random", ["--id-test", "5", "--val", "3"]),
        ("boom", ["--target", "gap", "--ood", "6", "--id-test", "5", "--val", "3"]),
    ],
)
def test_splits_count_and_keep_groups(table, tmp_path, capsys, method, options):
    rows = []
    for group in range(30):
        size = 1 + group % 4
        gap = float(group) + 0.1 * group**2
        rows += [(moved("CH4" if group % 2 else "C2H6"), f"g{group}", gap) for _ in range(size)]
    order = RNG.permutation(len(rows))
    convert(table([rows[row] for row in order]), tmp_path / "all", *OPTIONS)
    command = ["split", method, str(tmp_path / "all"), str(tmp_path / "split"), *options]
    assert main(command) == 0
    assert f"30 groups of {len(rows)} rows" in capsys.readouterr().out
    found = {}
    for part in ("train", "val", "id_test", *(["ood_test"] if method == "boom" else [])):
        pooling = Pooling(StructureSet.open(tmp_path / "split" / part))
        found[part] = set(pooling.structures.ids)
        sizes = np.bincount(pooling.groups)
        expected = [1 + int(name[1:]) % 4 for name in pooling.structures.ids]
        assert sizes.tolist() == expected  # nothing of a group is elsewhere
    assert (len(found["id_test"]), len(found["val"])) == (5, 3)
    assert sum(map(len, found.values())) == 30


def test_published_rows_do_not_divide_groups(table, tmp_path, capsys):
    rows = [(moved("CH4"), f"g{number // 2}", float(number // 2)) for number in range(8)]
    convert(table(rows), tmp_path / "all", *OPTIONS)
    command = ["split", "matbench", str(tmp_path / "all"), str(tmp_path / "split")]
    assert main([*command, "--target", "gap"]) == 1
    assert "has one label for each group of structures" in capsys.readouterr().err
