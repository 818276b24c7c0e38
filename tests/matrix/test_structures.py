"""What a user's structures may look like, through `dp-mft convert`.

One table: each case says what becomes of it. It is read from an extxyz file, an ASE database and
a table of files, and written as npy and as LMDB; what is written is read back from the raw files.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, field

import ase
import ase.db
import ase.io
import numpy as np
import pytest

from deepmd_mft.cli import main
from tests.helpers.sets import Frame, assert_same, read_set

CUBE = 4.2 * np.eye(3)
#: The same lattice, mirrored order of the vectors: determinant -74.
LEFT = CUBE[[1, 0, 2]]
SKEWED = np.array([[4.0, 0.0, 0.0], [1.3, 4.1, 0.0], [-0.6, 0.9, 4.4]])
SLAB = np.diag([4.2, 4.2, 40.0])
SALT = [[0.0, 0.0, 0.0], [2.1, 2.1, 2.1]]
AMMONIA = [[0.0, 0.0, 0.1], [0.94, 0.0, -0.2], [-0.47, 0.81, -0.2], [-0.47, -0.81, -0.2]]
CHAIN = [[1.1 * i, 0.4 * (i % 2), 0.3 * (i % 3)] for i in range(500)]


@dataclass
class Case:
    """One kind of structure and what becomes of it.

    Parameters
    ----------
    numbers : list of int
        Atomic numbers.
    coords : list
        Positions.
    cell : np.ndarray, optional
        Cell vectors in rows.
    pbc : tuple of bool
        Periodic directions.
    box : np.ndarray, optional
        What must be written; None for a molecule.
    skipped : str, optional
        Part of the reason for which it is left out; it is written if this is None.
    said : str, optional
        What the summary must say of a structure that is written.
    gap : float
        Its label.
    frames : int
        How many of it are in the file, each shifted a little.
    """

    numbers: list[int]
    coords: list
    cell: np.ndarray | None = None
    pbc: tuple[bool, bool, bool] = (False, False, False)
    box: np.ndarray | None = None
    skipped: str | None = None
    said: str | None = None
    gap: float = 1.5
    frames: int = 1
    info: dict = field(default_factory=dict)


ALL, TWO, ONE = (True, True, True), (True, True, False), (True, False, False)
CASES = {
    "molecule": Case([7, 1, 1, 1], AMMONIA),
    "molecule in a box that is no cell": Case([7, 1, 1, 1], AMMONIA, 30 * np.eye(3)),
    "one atom": Case([9], [[0.3, 0.2, 0.1]]),
    "one atom in a cell": Case([11], [[0.0, 0.0, 0.0]], CUBE, ALL, CUBE),
    "500 atoms": Case([6, 1] * 250, CHAIN),
    "several frames": Case([7, 1, 1, 1], AMMONIA, frames=5),
    "crystal": Case([11, 17], SALT, CUBE, ALL, CUBE),
    "skewed cell": Case([11, 17], SALT, SKEWED, ALL, SKEWED),
    "atom outside of its cell": Case([11, 17], [[9.0, -5.0, 0.0], SALT[1]], CUBE, ALL, CUBE),
    "left-handed cell": Case([11, 17], SALT, LEFT, ALL, -LEFT),
    "slab with vacuum": Case([11, 17], SALT, SLAB, TWO, SLAB, said="partly periodic"),
    "slab without vacuum": Case([11, 17], SALT, CUBE, TWO, skipped="partly periodic"),
    "rod without vacuum": Case([11, 17], SALT, CUBE, ONE, skipped="partly periodic"),
    "flat cell": Case(
        [11, 17], SALT, np.diag([4.2, 4.2, 0.0]), ALL, skipped="the cell has no volume"
    ),
    "dummy atom": Case([0, 1, 1, 1], AMMONIA, skipped="dummy atom"),
    "dummy atom in a crystal": Case([11, 0], SALT, CUBE, ALL, skipped="dummy atom"),
    "two atoms in one place": Case([7, 1, 1, 1], [AMMONIA[0], *AMMONIA[:3]], skipped="closer than"),
    "an atom on its neighbour's image": Case(
        [11, 17], [[0.05, 0.0, 0.0], [4.15, 0.0, 0.0]], CUBE, ALL, skipped="closer than"
    ),
    "coordinate that is none": Case(
        [7, 1, 1, 1], [[np.nan, 0, 0], *AMMONIA[1:]], skipped="coordinates are not finite"
    ),
    "label that is none": Case([7, 1, 1, 1], AMMONIA, gap=np.nan, skipped="gap is NaN"),
    "infinite label": Case([7, 1, 1, 1], AMMONIA, gap=np.inf, skipped="gap is NaN or inf"),
    "partly occupied site": Case(
        [11, 17],
        SALT,
        CUBE,
        ALL,
        skipped="partial",
        info={"occupancy": {"0": {"Na": 0.5}, "1": {"Cl": 1.0}}},
    ),
    "full sites that say so": Case(
        [11, 17],
        SALT,
        CUBE,
        ALL,
        CUBE,
        info={"occupancy": {"0": {"Na": 1.0}, "1": {"Cl": 1.0}}},
    ),
}


def structures(case: Case) -> list[ase.Atoms]:
    made = []
    for i in range(case.frames):
        one = ase.Atoms(case.numbers, np.array(case.coords, float) + 0.01 * i, pbc=case.pbc)
        if case.cell is not None:
            one.cell = case.cell
        one.info.update(case.info, gap=case.gap + i, name=f"case{i}")
        made.append(one)
    return made


def companion(case: Case) -> Case:
    """A sound structure of the same kind, so that something is left to write."""
    return CASES["crystal" if case.cell is not None and any(case.pbc) else "molecule"]


def write_source(folder, container, atoms):
    """Write structures as a user has them; return the arguments that read them."""
    folder.mkdir()
    if container == "extxyz":
        ase.io.write(folder / "all.extxyz", atoms)
        return [str(folder / "all.extxyz"), "--property", "gap=gap:eV", "--id-key", "name"]
    if container == "db":
        with ase.db.connect(folder / "all.db") as database:
            for one in atoms:
                keys = {"gap": one.info["gap"], "name": one.info["name"]}
                database.write(one, key_value_pairs=keys)
        return [str(folder / "all.db"), "--property", "gap=gap:eV", "--id-key", "name"]
    with (folder / "table.csv").open("w", newline="") as handle:
        table = csv.writer(handle)
        table.writerow(["id", "file", "gap"])
        for i, one in enumerate(atoms):
            ase.io.write(folder / f"{i}.extxyz", one)
            table.writerow([one.info["name"], f"{i}.extxyz", one.info["gap"]])
    return [str(folder / "table.csv"), "--property", "gap=gap:eV"]


def expected(case: Case) -> list[Frame]:
    return [
        Frame(case.numbers, np.array(case.coords) + 0.01 * i, case.gap + i, case.box)
        for i in range(case.frames)
    ]


def combinations():
    for name, case in CASES.items():
        for container in ("extxyz", "db", "table"):
            if container == "db" and case.info:
                continue  # an ASE database has no place for occupancies
            for out in ("set", "set.lmdb"):
                yield name, container, out


@pytest.mark.parametrize(("name", "container", "out"), combinations())
def test_structures(tmp_path, capsys, name, container, out):
    case = CASES[name]
    beside = companion(case)
    good = structures(beside)
    good[0].info["name"] = "good"
    good[0].positions += 0.005
    words = write_source(tmp_path / "source", container, [*structures(case), *good])
    assert main(["convert", *words, str(tmp_path / out), "--quiet"]) == 0
    printed = capsys.readouterr().out.replace(str(tmp_path), "")
    (left,) = expected(beside)
    left.coords = left.coords + 0.005
    assert_same(
        read_set(tmp_path / out),
        [left] if case.skipped else [*expected(case), left],
        atol=1e-12 if container == "db" else 1e-7,
    )
    if case.skipped:
        assert case.skipped in printed
        assert "case0" in printed
    if case.said:
        assert case.said in printed
