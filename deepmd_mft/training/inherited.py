"""What an inherited force-field head is worth on new data, said before the first step.

The data may be of another level of theory than the checkpoint's. Energies of the elements are
mended by a least squares fit (MACE's estimated E0s), which deepmd-kit makes where ``finetune_head``
names a head; forces that are wrong stay wrong, and hold the backbone to nothing worth keeping.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deepmd_mft.bridge.inherited import Inherited

log = logging.getLogger(f"deepmd.{__name__}")  # below deepmd's logger, to share its handlers

#: Frames that the head is tried on, spread over the systems, and atoms in one forward pass.
FRAMES, ATOMS = 256, 512
#: Frames for each unknown that a fit of energies to compositions needs to be worth comparing with.
FRAMES_PER_UNKNOWN = 2


@dataclass(frozen=True)
class FirstErrors:
    """Errors of an inherited head before the first step; NaN where there are no labels.

    Attributes
    ----------
    frames : int
        How many it was tried on.
    energy, uncorrected : float
        RMSE in eV per atom, with the shift of the elements and without it.
    composition : float
        RMSE, in eV per atom, of energies fitted to compositions alone; NaN with too few frames.
    force : float
        RMSE in eV/Angstrom, over components.
    no_force : float
        RMSE of predicting no force at all: the rms of the labels.
    """

    frames: int
    energy: float
    uncorrected: float
    composition: float
    force: float
    no_force: float


def report_inherited(head: Inherited) -> None:
    """Log what was done to an inherited head and its errors; warn if it is worth nothing.

    Parameters
    ----------
    head : Inherited
    """
    sample = head.sample()
    errors = first_errors(head, sample)
    where = f"branch '{head.branch}'" if head.branch else "the model"
    if head.shift is not None:
        _report_shift(head, _count_types(sample, len(head.type_map)), where)
    log.info(
        "%s, head '%s' of the checkpoint, before the first step on %d training frames: energy "
        "%.4g eV/atom (%.4g before the correction, %.4g from the composition alone), force %.4g "
        "eV/A (%.4g without any force)",
        where, head.source, errors.frames, errors.energy, errors.uncorrected, errors.composition,
        errors.force, errors.no_force,
    )  # fmt: skip
    for problem in problems(errors, resumed=head.shift is None):
        log.warning(
            "%s: the inherited head '%s' is worth nothing on these data before the first step: %s",
            where, head.source, problem,
        )  # fmt: skip


def problems(errors: FirstErrors, *, resumed: bool) -> Iterator[str]:
    """Say in what an inherited head is worse than none.

    Parameters
    ----------
    errors : FirstErrors
    resumed : bool
        Whether its energies were left as they are (``finetune_head`` left out).
    """
    if errors.force > errors.no_force:
        yield (
            f"its force error is {errors.force:.4g} eV/A, that of no force at all "
            f"{errors.no_force:.4g}. Check the units of the labels; else take another head of the "
            "checkpoint, or RANDOM"
        )
    if errors.energy > errors.composition:
        advice = (
            "With finetune_head set to its name, the energies of the elements are fitted to these "
            "data"
            if resumed
            else "Check the units of the labels; else take another head of the checkpoint, or "
            "RANDOM"
        )
        yield (
            f"its energy error is {errors.energy:.4g} eV/atom, that of a fit to the composition "
            f"alone {errors.composition:.4g}. {advice}"
        )


def first_errors(head: Inherited, sample: list[dict[str, Any]]) -> FirstErrors:
    """Predict some training frames with an inherited head, and compare with the labels.

    Parameters
    ----------
    head : Inherited
    sample : list of dict
        Its batches, one a system.
    """
    tried = 0
    energies, counts, missed, forces = [], [], [], []
    for batch, rows in _pieces(sample):
        energy, force = head.predict(batch, rows)
        tried += len(energy)
        label = _label(batch, "energy", rows)
        if label is not None:
            energies.append(np.column_stack([energy, label.reshape(-1)]))
            counts.append(_types_of(batch, len(head.type_map))[rows])
        label = _label(batch, "force", rows)
        if label is not None:
            real = batch["atype"][rows].cpu().numpy() >= 0
            label = label.reshape(force.shape)[real]
            forces.append(label)
            missed.append(label - force[real])
    of_energy = _energy_errors(energies, counts, head.shift)
    of_force = [_rms(np.concatenate(one)) if one else np.nan for one in (missed, forces)]
    return FirstErrors(tried, *of_energy, *of_force)


def _energy_errors(
    energies: list[np.ndarray], counts: list[np.ndarray], shift: np.ndarray | None
) -> tuple[float, float, float]:
    """Return the rms per atom with the shift, without it, and of a fit to the composition."""
    if not energies:
        return np.nan, np.nan, np.nan
    both, count = np.concatenate(energies), np.concatenate(counts)
    known = np.isfinite(both).all(axis=1)
    (predicted, label), count = both[known].T, count[known]
    natoms = count.sum(axis=1)
    left = label - predicted
    before = left if shift is None else left + count @ shift
    fit, _, rank, _ = np.linalg.lstsq(count, label, rcond=None)
    composition = _rms((label - count @ fit) / natoms)
    if len(label) < FRAMES_PER_UNKNOWN * rank:
        composition = np.nan
    return _rms(left / natoms), _rms(before / natoms), composition


def _report_shift(head: Inherited, counts: np.ndarray, where: str) -> None:
    """Log what was added to the energy of each element, and what the data do not determine."""
    assert head.shift is not None  # noqa: S101
    there = np.flatnonzero(counts.any(axis=0))
    told = ", ".join(f"{head.type_map[i]} {head.shift[i]:+.4g}" for i in there)
    log.info(
        "%s: energies of the elements shifted to those of the new data (least squares over %d "
        "frames), in eV: %s; those of the other elements of its type map (%d) stay",
        where, len(counts), told, counts.shape[1] - len(there),
    )  # fmt: skip
    rank = np.linalg.matrix_rank(counts)
    if rank < len(there):
        log.warning(
            "%s: the compositions of these data determine %d of %d energies of elements; the "
            "shifts fit their sums, each alone means nothing (least norm)",
            where, rank, len(there),
        )  # fmt: skip


def _pieces(sample: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], slice]]:
    """Yield frames of all systems, or of some spread over them, few enough for one pass."""
    systems = sample[:: -(-len(sample) // FRAMES)] if sample else []
    for batch in systems:
        nframes, natoms = batch["atype"].shape
        wanted = min(nframes, max(1, FRAMES // len(systems)))
        step = max(1, ATOMS // natoms)
        for start in range(0, wanted, step):
            yield batch, slice(start, min(start + step, wanted))


def _label(batch: dict[str, Any], name: str, rows: slice) -> np.ndarray | None:
    if batch.get(name) is None or not float(batch.get(f"find_{name}", 1.0)):
        return None
    return np.asarray(batch[name][rows].cpu().numpy(), dtype=float)


def _types_of(batch: dict[str, Any], ntypes: int) -> np.ndarray:
    """Return the atoms of each type in each frame of a batch, nframes x ntypes."""
    types = batch["atype"].cpu().numpy()
    return np.stack([(types == number).sum(axis=1) for number in range(ntypes)], axis=1)


def _count_types(sample: list[dict[str, Any]], ntypes: int) -> np.ndarray:
    return np.concatenate([_types_of(batch, ntypes) for batch in sample])


def _rms(values: np.ndarray) -> float:
    """Return the root of the mean square of what is known; NaN of nothing."""
    known = values[np.isfinite(values)]
    return float(np.sqrt(np.mean(known**2))) if known.size else np.nan
