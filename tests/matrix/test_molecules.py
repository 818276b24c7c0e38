"""What a table of SMILES may hold, through `dp-mft convert` and `dp-mft split`.

RDKit makes the geometries, so only what a molecule is made of is compared, and that atoms keep
their distance.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass

import numpy as np
import pytest

from deepmd_mft.cli import main
from tests.helpers.sets import read_set

pytest.importorskip("rdkit")


@dataclass
class Case:
    """A molecule and what becomes of it.

    Parameters
    ----------
    smiles : str
        As the user writes it.
    numbers : list of int
        Sorted atomic numbers of what must be written; empty if it is left out.
    said : str
        What the summary must say: a reason, or a remark on what is written.
    """

    smiles: str
    numbers: list[int]
    said: str = ""


CASES = {
    "one heavy atom": Case("O", [1, 1, 8]),
    "one atom": Case("[He]", [2]),
    "dihydrogen": Case("[H][H]", [1, 1]),
    "ring": Case("c1ccoc1", [1, 1, 1, 1, 6, 6, 6, 6, 8]),
    "stereo": Case("C[C@H](O)F", [1] * 5 + [6, 6, 8, 9]),
    "isotopes": Case("[2H]C([2H])O", [1, 1, 1, 1, 6, 8]),
    "carbon 13": Case("[13CH3]F", [1, 1, 1, 6, 9]),
    "atom maps": Case("[CH3:1][F:2]", [1, 1, 1, 6, 9]),
    "zwitterion": Case("[NH3+]CC(=O)[O-]", [1] * 5 + [6, 6, 7, 8, 8]),
    "ion": Case("C[NH3+]", [1] * 6 + [6, 7], said="charged"),
    "radical": Case("[CH3]", [1, 1, 1, 6], said="radical"),
    "salt": Case("[Na+].[Cl-]", [], said="fragments"),
    "solvate": Case("CCO.O", [], said="fragments"),
    "wildcard": Case("*CCO", [], said="dummy atom"),
    "not a SMILES": Case("C1CC", [], said="parse"),
    "empty": Case("", [], said="parse"),
}


def write_table(path, smiles):
    with path.open("w", newline="") as handle:
        table = csv.writer(handle)
        table.writerow(["id", "smiles", "gap"])
        table.writerows((f"row{i}", one, 0.5 + i) for i, one in enumerate(smiles))
    return str(path)


@pytest.mark.parametrize("out", ["set", "set.lmdb"])
@pytest.mark.parametrize("name", CASES)
def test_molecules(tmp_path, capsys, name, out):
    case = CASES[name]
    source = write_table(tmp_path / "table.csv", [case.smiles, "C"])
    assert main(["convert", source, str(tmp_path / out), "--property", "gap=gap:eV"]) == 0
    printed = capsys.readouterr().out.replace(str(tmp_path), "")
    frames = {frame.gap: frame for frame in read_set(tmp_path / out)}
    expected = {0.5: case.numbers, 1.5: [1, 1, 1, 1, 6]}
    assert {gap: sorted(frame.numbers) for gap, frame in frames.items()} == {
        gap: numbers for gap, numbers in expected.items() if numbers
    }
    for frame in frames.values():
        assert frame.box is None
        vectors = frame.coords[:, None] - frame.coords[None]
        apart = np.linalg.norm(vectors, axis=2)[np.triu_indices(len(frame.coords), 1)]
        assert not len(apart) or apart.min() > 0.6
    assert case.said in printed
    if not case.numbers:
        assert "row0" in printed


SPELLED = ["CCO", "OCC", "[2H]CCO", "[CH3:4][CH2:2][OH:1]"]
OTHERS = ["CCN", "CCF", "CC", "CO", "CN", "CF", "C#N", "N", "O"]


@pytest.mark.parametrize("seed", range(3))
def test_spellings_stay_on_one_side(tmp_path, seed):
    source = write_table(tmp_path / "table.csv", SPELLED + OTHERS)
    data, out = str(tmp_path / "set"), tmp_path / "split"
    assert main(["convert", source, data, "--property", "gap=gap:eV"]) == 0
    words = ["--id-test", "0.4", "--val", "0.3", "--seed", str(seed)]
    assert main(["split", "random", data, str(out), *words]) == 0
    (fold,) = json.loads((out / "split.json").read_text())["folds"]
    ethanol = {0.5, 1.5, 2.5, 3.5}
    parts = {part: {f.gap for f in read_set(out / part)} for part in ("train", "val", "id_test")}
    assert [ethanol <= gaps for gaps in parts.values() if ethanol & gaps] == [True]
    for part, gaps in parts.items():
        assert gaps == {0.5 + row for row in fold[part]}, "row i of the table has gap 0.5 + i"
