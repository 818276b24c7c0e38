"""Labels that mislead: in another unit, constant, far from all others, of unseen elements."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deepmd_mft.errors import UserError
from deepmd_mft.inputs.data import SECTIONS
from deepmd_mft.inputs.labels import weighed_labels
from deepmd_mft.structures.elements import ELEMENTS
from deepmd_mft.structures.overlaps import MIN_DISTANCE, overlapping
from deepmd_mft.structures.pooling import Pooling

if TYPE_CHECKING:
    from deepmd_mft.inputs.branches import Branch
    from deepmd_mft.inputs.findings import Findings
    from deepmd_mft.structures.structure_set import StructureSet

    Sets = dict[tuple[str, str], StructureSet]

#: Properties in Hartree whose values in eV are far larger (MFT, Table 6).
IN_HARTREE = ("homo", "lumo", "gap")


def elements_of(structures: StructureSet) -> dict[str, int]:
    """Return the elements of a set, and in how many structures each is."""
    counts = np.zeros(len(ELEMENTS) + 1, dtype=int)
    for numbers in structures.elements:
        counts[numbers] += 1
    return {ELEMENTS[z - 1]: int(counts[z]) for z in np.flatnonzero(counts[1:]) + 1}


def check_elements_seen(
    branch: Branch, sets: Sets, tests: list[StructureSet], findings: Findings
) -> None:
    """Warn of elements of held-out structures that the branch's training data never show.

    ``tests`` are the sets on which this branch is to be tested.
    """
    train = sets.get((branch.name, "training_data"))
    if train is None:
        return
    seen = elements_of(train).keys()
    others = [sets.get((branch.name, "validation_data")), *tests]
    for other in others:
        unseen = set() if other is None else elements_of(other).keys() - seen
        if other is None or not unseen:
            continue
        numbers = {ELEMENTS.index(name) + 1 for name in unseen}
        count = sum(not numbers.isdisjoint(one.tolist()) for one in other.elements)
        findings.warn(
            f"{branch.where}: {other.name} has {', '.join(sorted(unseen))} ({count} of "
            f"{len(other)} structures), which its training data never show. With bias: element "
            "they get the value of an average element; bias: mean or none does not depend on it"
        )


def check_distances(branch: Branch, sets: Sets, findings: Findings) -> None:
    """List structures of training and validation data that have two atoms in one place."""
    for section in SECTIONS:
        structures = sets.get((branch.name, section))
        if structures is None:
            continue
        alike: dict[tuple[int, bool], list[int]] = {}
        for row, one in enumerate(structures.structures):
            alike.setdefault((len(one.numbers), one.cell is None), []).append(row)
        bad: list[int] = []
        for (_, molecule), rows in alike.items():
            some = [structures.structures[row] for row in rows]
            cells = None if molecule else np.array([one.cell for one in some])
            close = overlapping(np.array([one.positions for one in some]), cells)
            bad += [row for row, found in zip(rows, close, strict=True) if found]
        if bad:
            findings.errors.append(
                f"{branch.where}: {len(bad)} of {len(structures)} structures of "
                f"{structures.name} have two atoms closer than {MIN_DISTANCE} A (first: "
                f"{structures.ids[min(bad)]}); the loss becomes NaN there. Remove or mend them"
            )


def check_values(branch: Branch, sets: Sets, findings: Findings) -> None:
    """Warn of labels that cannot be meant, in training and validation data."""
    if not branch.is_property:
        for section in SECTIONS:
            if (branch.name, section) in sets:
                _check_forces(branch, sets[branch.name, section], findings)
        return
    for name, dim in branch.labels.items():
        spread: dict[str, np.ndarray] = {}
        for section in SECTIONS:
            frames = sets.get((branch.name, section))
            structures = None if frames is None else _one_each(frames)
            values = None if structures is None else _labels(structures, name, dim)
            if structures is None or values is None:
                continue
            spread[section] = np.array([_spread(column) for column in values.T])
            if branch.head != "mft_classification":
                for number in range(dim):
                    shown = name if dim == 1 else f"{name}[{number}]"
                    _check_label(branch, structures, (name, shown), values[:, number], findings)
        if len(spread) == len(SECTIONS):
            _compare_spread(branch, name, spread, findings)


def _labels(structures: StructureSet, name: str, dim: int) -> np.ndarray | None:
    try:
        return structures.labels(name, dim)
    except (UserError, ValueError, OSError):
        return None  # reported by the checks before


def _one_each(frames: StructureSet) -> StructureSet:
    """Return the set with one row for each label."""
    try:
        return Pooling(frames).structures
    except (UserError, ValueError, OSError):
        return frames  # reported by the checks before


def _spread(column: np.ndarray) -> float:
    known = column[np.isfinite(column)]
    varied = len(known) > 0 and np.ptp(known) > 0  # the std of equal numbers is not quite zero
    return float(known.std()) if varied else np.nan


def _compare_spread(
    branch: Branch, name: str, spread: dict[str, np.ndarray], findings: Findings
) -> None:
    """Warn if a component varies far more in one of the two sets than in the other."""
    for number, (a, b) in enumerate(zip(*(spread[section] for section in SECTIONS), strict=True)):
        if a > 0 and b > 0 and not 1 / 8 < b / a < 8:
            shown = name if len(spread["training_data"]) == 1 else f"{name}[{number}]"
            findings.warn(
                f"{branch.where}: {shown} varies by {a:.3g} in training and {b:.3g} in validation "
                "data; are they in the same unit?"
            )


def _check_label(
    branch: Branch,
    structures: StructureSet,
    names: tuple[str, str],
    values: np.ndarray,
    findings: Findings,
) -> None:
    """Check one component, given by the property's name and its own."""
    name, shown = names
    known = np.flatnonzero(np.isfinite(values))
    column = values[known]
    if not len(column):
        return
    if not np.ptp(column):
        return  # told of the training data by the checks before a training
    median = np.median(column)
    width = np.median(np.abs(column - median)) * 1.4826
    far = np.flatnonzero(np.abs(column - median) > 12 * width) if width else np.array([], int)
    if len(far):
        worst = far[np.abs(column[far] - median).argmax()]
        findings.warn(
            f"{branch.where}: {shown} of {len(far)} structures of {structures.name} lies more than "
            f"12 robust standard deviations from the median {median:.4g}; the farthest is "
            f"{column[worst]:.4g} ({structures.ids[known[worst]]}). Mend or remove them if they "
            "are errors: they rule a squared loss"
        )
    typical = np.median(np.abs(column))
    if name.lower() in IN_HARTREE and typical > 1.5 and _unit(structures, name) in ("", "Hartree"):
        findings.warn(
            f"{branch.where}: the median |{shown}| in {structures.name} is {typical:.3g}; QM9's is "
            "below 0.5 Hartree. These look like eV: divide by 27.2114 to compare with published "
            "errors"
        )


def _unit(structures: StructureSet, name: str) -> str:
    return structures.units.get(name, "")


def _check_forces(branch: Branch, structures: StructureSet, findings: Findings) -> None:
    """Warn of forces in another unit, and of labels that deepmd-kit's own loss would skip."""
    energy = _labels(structures, "energy", 1)
    if energy is not None and len(energy) > 1 and not np.ptp(energy):
        findings.warn(
            f"{branch.where}: the energy of all {len(energy)} structures of {structures.name} is "
            f"{energy[0, 0]:g}; there is nothing to learn"
        )
    try:
        rms = structures.rms_force()
    except (UserError, ValueError, OSError):
        return  # reported by the checks before
    if rms is None:
        needed = [] if branch.loss_type != "ener" else [one.name for one in weighed_labels(branch)]
        if "force" in needed:
            findings.warn(
                f"{branch.where}: {structures.name} has systems without force.npy; deepmd-kit's "
                'loss "ener" skips them without a word (mft_force_field does not)'
            )
        return
    if rms == 0:
        findings.warn(f"{branch.where}: all forces of {structures.name} are zero")
    elif not 0.02 < rms < 50:
        findings.warn(
            f"{branch.where}: the rms force of {structures.name} is {rms:.3g}; in eV/Angstrom it "
            "is usually between 0.02 and 50. Check the unit (1 Hartree/Bohr = 51.42 eV/Angstrom)"
        )
