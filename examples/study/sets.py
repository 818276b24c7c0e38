"""The sets of a study: for each target a BOOM split of QM9, drawn to a size that runs here."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

EXAMPLE = Path(__file__).resolve().parents[1] / "qm9_gap"
sys.path.insert(0, str(EXAMPLE))

import make_data  # noqa: E402

#: Columns of qm9pack, by the name of the label.
COLUMNS = {
    "gap": "HOMO_LUMO_gap_au",
    "homo": "HOMO_au",
    "lumo": "LUMO_au",
    "mu": "Dipole_debye",
    "r2": "R2_bohr2",
    "alpha": "Polarizability_bohr3",
}
VALIDATION = ("valid", "valid_tail")
TESTS = ("id_test", "ood_test")


def prepare(qm9: Path, work: Path, target: str, labels: int, pretraining: Path | None) -> Path:
    """Write `train<labels>` and, if they are not there, validation and test sets of a target.

    The draw is that of the example, so for the gap its sets come out. Molecules of the pretraining
    are taken out of the validation sets: what they say about OOD would be too good.

    Parameters
    ----------
    qm9 : Path
        Folder of qm9pack's CSV files.
    work : Path
        The sets go to a folder of the target's name in it.
    target : str
        One of :data:`COLUMNS`.
    labels : int
        Training molecules; smaller sets are the first of larger ones.
    pretraining : Path or None
        CSV with the column ``Index`` of the QM9 molecules that the checkpoint was trained on.

    Returns
    -------
    Path
        The folder of the sets.
    """
    folder = work / target
    wanted = [f"train{labels}", *VALIDATION, *TESTS]
    if all((folder / name).is_dir() for name in wanted):
        return folder
    table = make_data.read_qm9(qm9)
    values = _labels(qm9, table, COLUMNS[target])
    split = make_data.boom_split(values)
    settings = make_data.parse(["--qm9", str(qm9), "--labels", str(labels)])
    rows = make_data.draw_subsets(values, split, settings)
    if pretraining is not None:
        seen = pd.read_csv(pretraining, usecols=["Index"])["Index"]
        known = np.flatnonzero(table["Index"].isin(seen))
        for name in (*VALIDATION, *TESTS):
            kept = rows[name][~np.isin(rows[name], known)]
            if name in TESTS and len(kept) < len(rows[name]):
                raise AssertionError(f"{target}: molecules of {name} are in the pretraining")
            rows[name] = kept
    for name, source in zip(wanted, ("train", *VALIDATION, *TESTS), strict=True):
        if not (folder / name).is_dir():
            mine = rows[source]
            make_data.write_mixed(
                folder / name,
                make_data.molecules(table, mine),
                make_data.PAD_PROPERTY,
                {target: values[mine]},
            )
    return folder


def _labels(qm9: Path, table: pd.DataFrame, column: str) -> np.ndarray:
    """Return a column of qm9pack for the rows of the table; of equal SMILES the last counts."""
    parts = [
        pd.read_csv(qm9 / name, usecols=["Index", "SMILES", column]) for name in make_data.QM9_FILES
    ]
    last = pd.concat(parts).sort_values("Index", kind="stable").groupby("SMILES", sort=False)
    return last[column].last().loc[table["SMILES"]].to_numpy(dtype=np.float64)
