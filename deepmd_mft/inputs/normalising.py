"""Energies and forces of several data sets in common units, as joint pre-training needs them.

JMP (arXiv 2310.16802, section 4.1) takes from the energies of each data set a linear reference, one
energy per element fitted to the whole set, measures what is left in units of its standard deviation
and forces in units of their rms.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deepmd_mft.errors import UserError
from deepmd_mft.inputs.branches import normalised, read_branches
from deepmd_mft.inputs.shares import shares_by_size
from deepmd_mft.inputs.systems import list_systems
from deepmd_mft.structures.elements import atomic_number
from deepmd_mft.structures.structure_set import StructureSet

if TYPE_CHECKING:
    from collections.abc import Sequence

#: What a fit of energies leaves that is no more than rounding, as a share of the largest.
ROUNDING = 1e-10

__all__ = ["Reference", "fit_reference", "normalise_force_fields"]


@dataclass(frozen=True)
class Reference:
    """What makes the labels of a data set comparable.

    Attributes
    ----------
    energies : dict of str to float
        Reference energy per element, eV; of elements that occur.
    energy_scale : float
        Standard deviation of what these leave of the energies, eV a structure.
    force_scale : float
        Rms of the forces, eV/Angstrom.
    atoms : float
        Mean number of atoms a structure: JMP's weight of the forces.
    """

    energies: dict[str, float]
    energy_scale: float
    force_scale: float
    atoms: float


def fit_reference(structures: StructureSet, type_map: Sequence[str]) -> Reference:
    """Fit a reference to all structures of a set, by least squares.

    Elements that always occur in the same proportion share their energy in least norm.

    Raises
    ------
    UserError
        If energies or forces are missing, do not vary, or an element is not in the type map.
    """
    energy = structures.label("energy")
    numbers = [atomic_number(symbol) for symbol in type_map]
    counts = np.array(
        [[np.count_nonzero(one.numbers == z) for z in numbers] for one in structures], dtype=float
    )
    absent = counts.sum(axis=1) < structures.natoms
    if absent.any():
        raise UserError(
            f"{structures.path}: structure {structures.ids[int(np.argmax(absent))]} has an element "
            f"that is not in the type_map {' '.join(type_map)}; add it there"
        )
    fitted = np.linalg.lstsq(counts, energy, rcond=None)[0]
    scale = float(np.std(energy - counts @ fitted))
    rms = structures.rms_force()
    what = ""
    if rms is None:
        what = "no forces"
    elif not np.isfinite(rms):
        what = "forces that are NaN or infinite"
    elif not rms:
        what = "forces that are all zero"
    elif scale <= ROUNDING * np.abs(energy).max():
        what = "energies that the composition alone determines"
    if what:
        raise UserError(f"{structures.path} has {what}: it cannot be normalised")
    assert rms is not None  # noqa: S101
    occurs = np.flatnonzero(counts.any(axis=0)).tolist()
    energies = {type_map[i]: float(fitted[i]) for i in occurs}
    return Reference(energies, scale, rms, float(structures.natoms.mean()))


def normalise_force_fields(config: dict[str, Any], temperature: float | None = None) -> list[str]:
    """Fill references and scales into every branch with the loss ``mft_force_field``.

    ``preset_out_bias`` of the model, ``energy_scale`` and ``force_scale`` of the loss, and its
    prefactors. JMP weighs the energy of a structure with 1 and the mean over its atoms of the
    forces with the mean number of atoms N; deepmd-kit divides energy terms by the atoms, so that
    both prefactors are N here.

    Parameters
    ----------
    config : dict
        An input, with paths relative to the current folder as for ``dp``; changed.
    temperature : float, optional
        Also set ``model_prob`` by the numbers n of training structures, n^(1/T) (JMP, section 4.2).

    Returns
    -------
    list of str
        What was set, one line a branch.

    Raises
    ------
    UserError
        If the input does not fit the schema, there is no such branch, or its training data cannot
        be normalised.
    """
    model = config["model"]
    several = "model_dict" in model
    read_branches(config)  # says what the schema does not: which branch lacks its loss or data
    branches = read_branches(normalised(deepcopy(config)))
    ours = [one for one in branches if one.loss_type == "mft_force_field"]
    if not ours:
        raise UserError(
            "no branch has a loss of type mft_force_field, whose labels could be normalised"
        )
    others = [one for one in branches if one not in ours]
    if temperature is not None and (others or not several):
        raise UserError(
            "--temperature sets the shares of several force-field branches; "
            + (f"{others[0].where} is none" if others else "this input has one model")
        )
    notes, sizes = [], {}
    for one in ours:
        if "training_data" not in one.data:
            raise UserError(f"{one.where} has no training_data to normalise")
        systems = list_systems(one.data["training_data"], one, "training_data")
        structures = StructureSet(one.where, [Path(system) for system in systems])
        type_map = one.model["type_map"]
        found, sizes[one.name] = fit_reference(structures, type_map), len(structures)
        part = model["model_dict"][one.name] if several else model
        part["preset_out_bias"] = {"energy": [found.energies.get(s) for s in type_map]}
        loss = config["loss_dict"][one.name] if several else config["loss"]
        loss.update(
            energy_scale=found.energy_scale,
            force_scale=found.force_scale,
            start_pref_e=found.atoms, limit_pref_e=found.atoms,
            start_pref_f=found.atoms, limit_pref_f=found.atoms,
        )  # fmt: skip
        notes.append(
            f"{one.name or 'the model'}: {len(structures)} structures, energies of "
            f"{len(found.energies)} elements as reference, energy_scale {found.energy_scale:.4g} "
            f"eV, force_scale {found.force_scale:.4g} eV/A, prefactors {found.atoms:.4g} (atoms a "
            "structure)"
        )
    if temperature is not None:
        shares = shares_by_size(sizes, temperature)
        config["training"]["model_prob"] = shares
        told = ", ".join(f"{name} {share:.3f}" for name, share in shares.items())
        notes.append(f"shares by temperature {temperature:g}: {told}")
    return notes
