"""Choose the molecules of a broad auxiliary set, none of them in a test set of BOOM.

    pip download --no-deps qm9pack==1.0.3 molsets==0.3.1
    unzip qm9pack-1.0.3-py3-none-any.whl 'qm9pack/data/*'
    unzip molsets-0.3.1-py3-none-any.whl 'moses/dataset/data/train.csv.gz'
    python make_molecules.py --qm9 qm9pack/data --zinc moses/dataset/data/train.csv.gz --out build

Writes two sources for `dp-mft convert`: `molecules.csv` (SMILES; geometries are RDKit's) and
`qm9.csv` (rows of qm9pack with the geometries of QM9), and `molecules.json` with counts, seeds and
checksums. What is drawn:

- `qm9`: training molecules of all eight BOOM splits of QM9 at once;
- `zinc`: ZINC clean leads (Polykovskiy et al., MOSES) of at most 20 heavy atoms;
- `fragment`: their BRICS fragments of at most 12 heavy atoms, open ends closed with hydrogen;
- `decorated`: fragments with one or two hydrogens of carbons replaced by halogens, and groups of
  phosphorus and sulfur;
- `fluorinated`: saturated molecules, a random number of whose C-H are C-F, none included;
- `zwitterion`: fragments with an ammonium and a carboxylate group.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from rdkit import Chem, RDLogger
from rdkit.Chem import BRICS

from deepmd_mft.files.checksums import file_checksum
from deepmd_mft.splits.boom import boom
from deepmd_mft.structures.molecules import canonical_smiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TARGETS = (
    "HOMO_au",
    "LUMO_au",
    "HOMO_LUMO_gap_au",
    "Polarizability_bohr3",
    "Heatcapacity_Cv_cal_mol_K",
    "ZPVE_au",
    "R2_bohr2",
    "Dipole_debye",
)
NUMBERS = {
    "qm9": 10_000,
    "zinc": 4_000,
    "fragment": 10_000,
    "decorated": 6_000,
    "fluorinated": 3_000,
    "zwitterion": 1_000,
}
ZINC_READ = 60_000
LARGEST, LARGEST_FRAGMENT = 20, 12
ELEMENTS = {"H", "C", "N", "O", "F", "P", "S", "Cl", "Br", "I"}
GROUPS = ("F", "Cl", "Br", "I", "S", "P", "C(F)(F)F", "SC", "P(C)C", "P(=O)(O)O", "P(=O)(C)C",
          "S(=O)(=O)C", "S(=O)(=O)N", "C#N", "[N+](=O)[O-]", "OC(F)F")  # fmt: skip
SEED = 20261127


def main() -> int:
    """Draw, exclude, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--qm9", type=Path, required=True, help="folder of qm9pack's CSV files")
    parser.add_argument("--zinc", type=Path, required=True, help="train.csv.gz of molsets")
    parser.add_argument("--boom10k", type=Path, nargs="*", default=[], help="CSV of BOOM's 10k set")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    RDLogger.DisableLog("rdApp.*")
    rng = np.random.default_rng(SEED)
    table = pd.concat(pd.read_csv(args.qm9 / f"qm9_part{i}.csv") for i in (1, 2, 3))
    table = table.sort_values("Index", kind="stable").reset_index(drop=True)
    table["canonical"] = canonical_smiles(list(table["SMILES"]), jobs=2)
    tests = tested(table) | held_back(table) | tested_10k(args.boom10k)
    print(f"{len(tests):,} molecules are in a test or validation set", flush=True)

    allowed = table[~table["canonical"].isin(tests)].drop_duplicates("canonical")
    qm9 = allowed.iloc[np.sort(rng.choice(len(allowed), NUMBERS["qm9"], replace=False))]
    seen = tests | set(qm9["canonical"])
    zinc = pd.read_csv(args.zinc)["SMILES"]
    zinc = [Chem.MolFromSmiles(s) for s in rng.choice(zinc, ZINC_READ, replace=False)]
    fragments = [m for m in brics(zinc) if m.GetNumHeavyAtoms() <= LARGEST_FRAGMENT]
    saturated = [m for m in map(Chem.MolFromSmiles, allowed["SMILES"]) if is_saturated(m)]
    sources: dict[str, Iterator[str]] = {
        "zinc": (Chem.MolToSmiles(m) for m in zinc if m.GetNumHeavyAtoms() <= LARGEST),
        "fragment": (Chem.MolToSmiles(m) for m in shuffled(fragments, rng)),
        "decorated": made(fragments, rng, lambda m: decorated(m, rng)),
        "fluorinated": made(saturated, rng, lambda m: fluorinated(m, rng)),
        "zwitterion": made(fragments, rng, lambda m: zwitterion(m, rng)),
    }
    rows = [
        (f"{kind}-{i}", kind, name)
        for kind, source in sources.items()
        for i, name in enumerate(itertools.islice(new(source, seen), NUMBERS[kind]))
    ]
    args.out.mkdir(parents=True, exist_ok=True)
    molecules = pd.DataFrame(rows, columns=["id", "kind", "SMILES"])
    molecules.to_csv(args.out / "molecules.csv", index=False)
    qm9.drop(columns="canonical").to_csv(args.out / "qm9.csv", index=False)
    record = {
        "seed": SEED,
        "excluded": len(tests),
        "molecules": {"qm9": len(qm9), **molecules["kind"].value_counts().to_dict()},
        "sources": {p.name: file_checksum(p) for p in [args.zinc, *args.boom10k]}
        | {f"qm9_part{i}.csv": file_checksum(args.qm9 / f"qm9_part{i}.csv") for i in (1, 2, 3)},
        "sha256": {n: file_checksum(args.out / n) for n in ("molecules.csv", "qm9.csv")},
    }
    (args.out / "molecules.json").write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record["molecules"]))
    return 0


def new(source: Iterator[str], seen: set[str]) -> Iterator[str]:
    """Yield the suitable molecules that were not seen, each once."""
    for text in source:
        molecule = Chem.MolFromSmiles(text)
        if molecule is None or not suits(molecule):
            continue
        (name,) = canonical_smiles([text])
        if name not in seen:
            seen.add(name)
            yield name


def tested(table: pd.DataFrame) -> set[str]:
    """Return the molecules of the ID and OOD test sets of the eight BOOM splits of QM9."""
    groups = pd.factorize(table["SMILES"])[0]  # BOOM's own: letter by letter
    found: set[str] = set()
    for target in TARGETS:
        (fold,) = boom(table[target].to_numpy(float), groups)
        for rows in (fold.id_test, fold.ood_test):
            found |= set(table["canonical"].to_numpy()[rows])
        print(f"{target}: {len(found):,}", flush=True)
    return found


def held_back(table: pd.DataFrame) -> set[str]:
    """Return what the embedded example has for validation and tests."""
    provenance = json.loads(
        (Path(__file__).parents[1] / "qm9_gap" / "data" / "provenance.json").read_text()
    )
    held = ("valid", "valid_tail", "id_test", "ood_test")
    index = {one for name in held for one in provenance["qm9_index"][name]}
    return set(table.loc[table["Index"].isin(index), "canonical"])


def tested_10k(files: list[Path]) -> set[str]:
    """Return the molecules of the ID and OOD test sets of BOOM's 10k data."""
    found: set[str] = set()
    for path in files:
        table = pd.read_csv(path)
        names = np.array(canonical_smiles(list(table["smiles"])))
        (fold,) = boom(table.iloc[:, 1].to_numpy(float), pd.factorize(names)[0], ood=1000)
        found |= set(names[fold.id_test]) | set(names[fold.ood_test])
    return found


def brics(molecules: list[Chem.Mol]) -> list[Chem.Mol]:
    """Return the distinct BRICS fragments, hydrogen for every open end, by name."""
    names: set[str] = set()
    for molecule in molecules:
        pieces = Chem.GetMolFrags(BRICS.BreakBRICSBonds(molecule), asMols=True)
        for piece in pieces:
            closed = Chem.RWMol(piece)
            for atom in closed.GetAtoms():
                if atom.GetAtomicNum() == 0:
                    atom.SetAtomicNum(1)
                    atom.SetIsotope(0)
            plain = Chem.RemoveHs(closed.GetMol())
            names.add(Chem.MolToSmiles(plain))
    return [m for m in map(Chem.MolFromSmiles, sorted(names)) if m is not None]


def shuffled(items: list, rng: np.random.Generator) -> Iterator:
    """Yield all, in random order."""
    for i in rng.permutation(len(items)):
        yield items[i]


def made(
    molecules: list[Chem.Mol], rng: np.random.Generator, make: Callable[[Chem.Mol], Chem.Mol | None]
) -> Iterator[str]:
    """Yield changed molecules, over and over."""
    for _ in range(20):
        for molecule in shuffled(molecules, rng):
            changed = make(molecule)
            if changed is not None:
                yield Chem.MolToSmiles(changed)


def replaced(molecule: Chem.Mol, groups: list[str], rng: np.random.Generator) -> Chem.Mol | None:
    """Return the molecule with hydrogens of carbons replaced by groups, one after the other."""
    for group in groups:
        sites = [a.GetIdx() for a in molecule.GetAtoms()
                 if a.GetAtomicNum() == 6 and a.GetTotalNumHs() > 0]  # fmt: skip
        if not sites:
            return None
        added = Chem.MolFromSmiles(group)
        both = Chem.RWMol(Chem.CombineMols(molecule, added))
        both.AddBond(int(rng.choice(sites)), molecule.GetNumAtoms(), Chem.BondType.SINGLE)
        for atom in both.GetAtoms():
            if not atom.GetFormalCharge() and not atom.GetIsAromatic():
                atom.SetNoImplicit(False)  # hydrogens are counted anew, with the new bond
                atom.SetNumExplicitHs(0)
        molecule = both.GetMol()
        if Chem.SanitizeMol(molecule, catchErrors=True):
            return None
    return molecule


def decorated(molecule: Chem.Mol, rng: np.random.Generator) -> Chem.Mol | None:
    """Return a fragment with one or two groups more."""
    return replaced(molecule, list(rng.choice(GROUPS, rng.integers(1, 3))), rng)


def fluorinated(molecule: Chem.Mol, rng: np.random.Generator) -> Chem.Mol | None:
    """Return a saturated molecule with any number of C-F in place of C-H."""
    hydrogens = sum(a.GetTotalNumHs() for a in molecule.GetAtoms() if a.GetAtomicNum() == 6)
    return replaced(molecule, ["F"] * int(rng.integers(0, hydrogens + 1)), rng)


def zwitterion(molecule: Chem.Mol, rng: np.random.Generator) -> Chem.Mol | None:
    """Return a fragment with an ammonium and a carboxylate group."""
    return replaced(molecule, ["[NH3+]", "C(=O)[O-]"], rng)


def is_saturated(molecule: Chem.Mol) -> bool:
    """Say whether a molecule has single bonds only, and no charge."""
    single = all(b.GetBondType() == Chem.BondType.SINGLE for b in molecule.GetBonds())
    return single and not any(a.GetFormalCharge() for a in molecule.GetAtoms())


def suits(molecule: Chem.Mol) -> bool:
    """Say whether a molecule is neutral, closed-shell, one piece, of our elements, small enough."""
    atoms = Chem.AddHs(molecule).GetAtoms()
    return (
        len(Chem.GetMolFrags(molecule)) == 1
        and Chem.GetFormalCharge(molecule) == 0
        and not any(a.GetNumRadicalElectrons() for a in atoms)
        and {a.GetSymbol() for a in atoms} <= ELEMENTS
        and len(atoms) > 1
        and molecule.GetNumHeavyAtoms() <= LARGEST
    )


if __name__ == "__main__":
    sys.exit(main())
