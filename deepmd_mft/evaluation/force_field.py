"""Errors of energies, forces and virials, as ``dp --pt test`` takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from deepmd_mft.errors import UserError
from deepmd_mft.evaluation.metrics import intervals, measure, per_atom
from deepmd_mft.names import REGRESSION

if TYPE_CHECKING:
    from deepmd_mft.structures.structure_set import StructureSet


def force_field_tables(
    structures: StructureSet, found: dict[str, np.ndarray]
) -> tuple[list[dict[str, Any]], np.ndarray | None, np.ndarray]:
    """Return the errors of a force field on a set.

    Parameters
    ----------
    structures : StructureSet
    found : dict of str to np.ndarray
        Energy, force and virial as the predictor returns them.

    Returns
    -------
    rows : list of dict
        One per quantity: ``energy`` (eV), ``energy_per_atom`` (eV per atom), ``force``
        (eV/Angstrom, over components) and, for crystals with labels, ``virial_per_atom`` (eV per
        atom, over components).
    energy : np.ndarray or None
        Labels of the energy, nframes x 1.
    force_rmse : np.ndarray
        RMSE of the force components of every structure, nframes; NaN without labels.
    """
    natoms = structures.natoms[:, None]
    energy, virial = structures.labels("energy", 1), structures.labels("virial", 9)
    rows = [
        _row("energy", found["energy"], energy),
        _row(
            "energy_per_atom",
            found["energy"] / natoms,
            None if energy is None else energy / natoms,
        ),
    ]
    force = atomic_labels(structures, "force", 3)
    each = np.full(len(structures), np.nan)
    row = _row("force", found["force"], None)
    row["frames"] = len(structures)
    if force is not None:
        numbers, bounds, each = per_atom(found["force"], force, structures.natoms)
        row |= {"labelled": int(np.isfinite(each).sum()), **numbers, **bounds}
    rows.append(row)
    periodic = np.array([one.cell is not None for one in structures.structures])
    if virial is not None and periodic.any():
        label, value = virial[periodic] / natoms[periodic], found["virial"][periodic]
        rows.append(_row("virial_per_atom", value / natoms[periodic], label))
    return rows, energy, each


def _row(name: str, prediction: np.ndarray, label: np.ndarray | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "property": name,
        "frames": len(prediction),
        "labelled": 0 if label is None else int(np.isfinite(label).all(axis=1).sum()),
        "nan_predictions": int((~np.isfinite(prediction)).any(axis=1).sum()),
    }
    if label is None:
        return {**row, **dict.fromkeys(REGRESSION, np.nan)}
    return {
        **row,
        **measure(prediction, label, classes=False),
        **intervals(prediction, label, classes=False),
    }


def atomic_labels(structures: StructureSet, name: str, columns: int) -> np.ndarray | None:
    """Return an atomic label of a whole set.

    Parameters
    ----------
    structures : StructureSet
    name : str
        Of the label, for instance ``force``.
    columns : int
        Per atom.

    Returns
    -------
    np.ndarray or None
        natoms of the set x columns, the structures one after the other, NaN where a structure has
        none; None if all have none.

    Raises
    ------
    UserError
        If a structure has too few of them.
    """
    natoms = structures.natoms
    starts = np.cumsum(natoms) - natoms
    values = np.full((int(natoms.sum()), columns), np.nan)
    found = False
    for store, rows, block in structures.label_blocks(name):
        for row, one in zip(rows, block, strict=True):
            length = natoms[row] * columns  # what follows is padding of a mixed system
            if len(one) < length or len(one) % columns:
                raise UserError(
                    f"{store.path}: {name} of {structures.ids[row]} has {len(one)} numbers, but "
                    f"{length} are needed for {natoms[row]} atoms; mend {name}.npy"
                )
            values[starts[row] : starts[row] + natoms[row]] = one[:length].reshape(-1, columns)
        found = True
    return values if found else None
