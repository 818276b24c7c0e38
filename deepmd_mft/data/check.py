"""The rules that every structure passes on its way into a data set, whatever its reader."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from deepmd_mft.data.electrons import electron_remarks
from deepmd_mft.data.frames import Frames, Skipped
from deepmd_mft.errors import UserError
from deepmd_mft.structures.cells import left_handed, right_handed
from deepmd_mft.structures.elements import ELEMENTS
from deepmd_mft.structures.overlaps import MIN_DISTANCE, overlapping

__all__ = ["FULL", "RCUT", "Checked", "check_frames"]

#: A cell of less volume per atom (in cubic Angstrom) is no cell; diamond has 5.7.
MIN_VOLUME = 0.1
#: Cutoff of DPA-3's published models, in Angstrom.
RCUT = 6.0

#: A site of this occupancy is full: a CIF may say 0.9999.
FULL = 1.0 - 1e-3
_NEVER_MISSING = {"energy", "force", "virial"}


@dataclass
class Checked:
    """Outcome of :func:`check_frames`.

    Parameters
    ----------
    frames : Frames, optional
        What is left, if anything, with right-handed cells.
    skipped : list of Skipped
        What was taken out, each with its reason.
    remarks : dict of str to list of str
        What a user should know about frames that are left: their names by remark.
    """

    frames: Frames | None
    skipped: list[Skipped]
    remarks: dict[str, list[str]] = field(default_factory=dict)


def check_frames(frames: Frames, *, allow_nan: bool = False, rcut: float = RCUT) -> Checked:
    """Take out the structures that would spoil a training, and put right what can be.

    Parameters
    ----------
    frames : Frames
        As a reader yields them.
    allow_nan : bool
        Keep NaN targets, for a loss that masks them. Coordinates, energies and forces
        must be finite all the same.
    rcut : float
        Vacuum (in Angstrom) that a partly periodic structure needs along its open directions.

    Raises
    ------
    UserError
        If arrays do not fit together: the file is not what its reader takes it for.
    """
    require_shapes(frames)
    reason = _unsuitable(frames)
    if reason:
        return Checked(None, [Skipped(name, reason) for name in frames.ids])
    reasons = _reasons(frames, allow_nan=allow_nan, rcut=rcut)
    keep = np.array([i not in reasons for i in range(len(frames))], dtype=bool)
    skipped = [Skipped(frames.ids[i], reason) for i, reason in sorted(reasons.items())]
    if not keep.any():
        return Checked(None, skipped)
    return _put_right(frames if keep.all() else frames.select(keep), skipped, rcut)


def require_shapes(frames: Frames) -> None:
    """Refuse arrays that do not belong together."""
    nf, nloc = len(frames), len(frames.numbers)
    expected = {"coordinates": (nf, nloc, 3), "energy": (nf,), "force": (nf, nloc, 3)}
    expected |= {"cells": (nf, 3, 3), "virial": (nf, 3, 3), "names": (nf,)}
    arrays = {"coordinates": frames.coords, "names": np.empty(len(frames.ids)), **frames.labels}
    if frames.cells is not None:
        arrays["cells"] = frames.cells
    for name, array in arrays.items():
        shape = expected.get(name, (nf, *array.shape[1:]))
        if array.shape != shape:
            raise UserError(
                f"{frames.ids[0] if frames.ids else 'structure'}: {name} of shape "
                f"{_times(array.shape)}, but {_times(shape)} belongs to {nf} structures of "
                f"{nloc} atoms; is the file damaged?"
            )


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _unsuitable(frames: Frames) -> str:
    """Why none of these frames can be used, or an empty string."""
    if not len(frames.numbers):
        return "no atoms"
    if (frames.numbers == 0).any():
        return "dummy atoms (X, *, atomic number 0)"
    if (frames.numbers < 0).any() or (frames.numbers > len(ELEMENTS)).any():
        return f"an atomic number that is not from 1 to {len(ELEMENTS)}"
    if not frames.occupancy >= FULL:
        return "sites with partial occupation"
    return ""


def _reasons(frames: Frames, *, allow_nan: bool, rcut: float) -> dict[int, str]:
    """Reason by frame number for those that cannot be used."""
    reasons: dict[int, str] = {}

    def blame(bad: np.ndarray, reason: str) -> None:
        for i in np.flatnonzero(bad):
            reasons.setdefault(int(i), reason)

    blame(~_finite(frames.coords), "coordinates are not finite")
    for name, value in frames.labels.items():
        known = np.nan_to_num(value, posinf=np.inf, neginf=-np.inf)
        may_miss = allow_nan and name not in _NEVER_MISSING
        blame(~_finite(known if may_miss else value), f"{name} is NaN or infinite")
    if frames.cells is not None:
        blame(~_finite(frames.cells), "the cell is not finite")
        if not all(frames.pbc):
            text = f"partly periodic with at most {rcut:g} A of vacuum along an open direction"
            blame(~(_vacuum(frames) > rcut), text)
        volume = np.abs(np.linalg.det(np.nan_to_num(frames.cells, posinf=0.0, neginf=0.0)))
        blame(volume < MIN_VOLUME * len(frames.numbers), "the cell has no volume")
    sound = np.array([i not in reasons for i in range(len(frames))], dtype=bool)
    if sound.any():
        close = np.zeros(len(frames), dtype=bool)
        cells = None if frames.cells is None else frames.cells[sound]
        close[sound] = overlapping(frames.coords[sound], cells)
        blame(close, f"two atoms are closer than {MIN_DISTANCE} A")
    return reasons


def _put_right(frames: Frames, skipped: list[Skipped], rcut: float) -> Checked:
    """Make cells right-handed and collect the remarks."""
    remarks = dict.fromkeys([*frames.remarks, *electron_remarks(frames)], frames.ids)
    if frames.cells is not None:
        if not all(frames.pbc):
            text = f"partly periodic with more than {rcut:g} A of vacuum, written as periodic"
            remarks[text] = frames.ids
        turned = left_handed(frames.cells)
        if turned.any():
            ids = [name for name, left in zip(frames.ids, turned, strict=True) if left]
            remarks["made right-handed (cell vectors negated: the same lattice)"] = ids
            frames = replace(frames, cells=right_handed(frames.cells))
    return Checked(frames, skipped, remarks)


def _finite(value: np.ndarray) -> np.ndarray:
    return np.asarray(np.isfinite(value.reshape(len(value), -1)).all(axis=1))


def _vacuum(frames: Frames) -> np.ndarray:
    """Smallest vacuum along an open direction, in Angstrom, shape ``nf``.

    It is the height of the cell over the face of the other two cell vectors, less what the
    atoms take up of it. Images along that direction are at least so far away.
    """
    assert frames.cells is not None  # noqa: S101 - asked of periodic structures only
    cells = np.nan_to_num(frames.cells, posinf=0.0, neginf=0.0)
    coords = np.nan_to_num(frames.coords, posinf=0.0, neginf=0.0)
    vacuum = np.full(len(frames), np.inf)
    for k in np.flatnonzero(~np.array(frames.pbc)):
        normal = np.cross(cells[:, (k + 1) % 3], cells[:, (k + 2) % 3])
        area = np.linalg.norm(normal, axis=1)
        normal /= np.where(area > 0, area, np.inf)[:, None]
        height = np.abs(np.einsum("fx,fx->f", cells[:, k], normal))
        taken = np.ptp(np.einsum("fix,fx->fi", coords, normal), axis=1)
        vacuum = np.minimum(vacuum, height - taken)
    return vacuum
