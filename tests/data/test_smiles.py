"""Geometries from SMILES: what is skipped, what is said, and the number of processes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from deepmd_mft.cli import main
from deepmd_mft.data.electrons import smiles_charge
from deepmd_mft.data.readers.smiles import geometry
from deepmd_mft.structures.structure_set import StructureSet

pytest.importorskip("rdkit")


def convert(tmp_path, smiles: list[str], *options: str, out: str = "set") -> dict:
    """Convert a table of SMILES named by themselves; return the summary."""
    path = tmp_path / "t.csv"
    path.write_text("id,smiles,gap\n" + "".join(f"{one},{one},1\n" for one in smiles))
    arguments = ["convert", str(path), str(tmp_path / out), "--property", "gap=gap:eV", *options]
    assert main(arguments) == 0
    return json.loads((tmp_path / out / "dataset.json").read_text())["summary"]


def test_fragments_are_not_put_together(tmp_path):
    summary = convert(tmp_path, ["C", "[Na+].[Cl-]", "CCO.O", "CC(=O)[O-].[K+]"])
    (reason,) = summary["skipped"]
    assert reason.startswith("several fragments")
    assert summary["skipped"][reason]["examples"] == ["[Na+].[Cl-]", "CCO.O", "CC(=O)[O-].[K+]"]
    assert summary["structures"] == 1


@pytest.mark.parametrize("dummy", ["*C", "C[*]", "[1*]CC", "CC*CC"])
def test_dummy_atoms(tmp_path, dummy):
    (reason,) = convert(tmp_path, ["C", dummy])["skipped"]
    assert reason == "dummy atoms (X, *, atomic number 0)"


def test_geometries_of_impossible_distances_are_skipped(tmp_path):
    # RDKit embeds SF6 with two fluorine atoms 1.2 A apart; cages and crowded ones are sound.
    sound = ["C1C2CC1C2", "CC(C)(C)C(C(C)(C)C)(C(C)(C)C)C(C)(C)C", "FC(F)(F)F", "[H][H]", "BrBr"]
    summary = convert(tmp_path, [*sound, "FS(F)(F)(F)(F)F"])
    (reason,) = summary["skipped"]
    assert reason.startswith("no sound geometry")
    assert summary["skipped"][reason]["examples"] == ["FS(F)(F)(F)(F)F"]
    assert summary["structures"] == len(sound)


def test_ions_radicals_and_isotopes_are_mentioned(tmp_path):
    remarks = convert(tmp_path, ["CC", "C[NH3+]", "[NH3+]CC(=O)[O-]", "C[CH2]", "[2H]CO"])[
        "remarks"
    ]
    examples = {text: entry["examples"] for text, entry in remarks.items()}
    assert examples == {
        "charged": ["C[NH3+]"],
        "radicals (unpaired electrons)": ["C[CH2]"],
        "isotopes in the SMILES (no matter to energies and geometries)": ["[2H]CO"],
    }


def test_relaxations_that_do_not_converge_are_mentioned(tmp_path, monkeypatch):
    monkeypatch.setattr("deepmd_mft.data.readers.smiles._ITERATIONS", 1)
    summary = convert(tmp_path, ["CC(C)OC(=O)c1ccc(cc1)N(=O)=O"], "--jobs", "1")
    assert summary["remarks"]["relaxation by the force field did not converge"]["structures"] == 1


def test_drug_like_molecules_are_relaxed(tmp_path):
    # RDKit's default of 200 steps leaves this one unconverged.
    from rdkit import Chem
    from rdkit.Chem import AllChem

    smiles = "CCc1ccc(cc1)C=C(COc1ccccc1C=NO)C(=O)OC"
    assert convert(tmp_path, [smiles])["remarks"] == {}
    ((_, coords, _),) = StructureSet.open(tmp_path / "set")
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    AllChem.EmbedMolecule(molecule, randomSeed=1)
    for i, place in enumerate(coords):
        molecule.GetConformer().SetAtomPosition(i, place.tolist())
    field = AllChem.MMFFGetMoleculeForceField(molecule, AllChem.MMFFGetMoleculeProperties(molecule))
    assert np.abs(field.CalcGrad()).max() < 0.02, "kcal/mol/A"


def test_processes_change_nothing(tmp_path):
    smiles = ["C" * n + end for n in range(1, 12) for end in ("O", "N", "(", ".C", "[CH2]", "S")]
    summaries = [
        convert(tmp_path, smiles, "--jobs", str(jobs), out=f"set{jobs}") for jobs in (1, 3)
    ]
    assert summaries[0] == summaries[1]
    one, three = (StructureSet.open(tmp_path / f"set{jobs}") for jobs in (1, 3))
    assert one.rows.ids == three.rows.ids
    for (_, a, _), (_, b, _) in zip(one, three, strict=True):
        np.testing.assert_array_equal(a, b)


def test_limit_with_processes(tmp_path):
    summary = convert(tmp_path, ["C" * n for n in range(1, 90)], "--jobs", "2", "--limit", "3")
    assert summary["structures"] == 3


@pytest.mark.parametrize(
    ("smiles", "charge"),
    [
        ("CCO", 0),
        ("[NH4+]", 1),
        ("[O-][N+](=O)C", 0),
        ("[Fe+3]", 3),
        ("[Cu++]", 2),
        ("[O-2].[Na+]", -1),
        ("[13CH3-:7]", -1),
        ("[C@@H](F)(Cl)[O-:3]", -1),
        ("[H+]", 1),
        ("[S--]", -2),
    ],
)
def test_charges_as_rdkit_counts_them(smiles, charge):
    from rdkit import Chem

    assert smiles_charge(smiles) == charge == Chem.GetFormalCharge(Chem.MolFromSmiles(smiles))


@pytest.mark.parametrize("smiles", ["CC(=O) OC", "C\nC", "CCO ethanol"])
def test_nothing_behind_white_space_is_dropped(smiles):
    assert "white space in the SMILES" in geometry(smiles)


def test_the_extension_of_a_smiles_is_read():
    assert len(geometry("CCO |$a;b;c$|").numbers) == 9
