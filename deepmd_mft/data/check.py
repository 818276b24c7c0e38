"""Checks that every configuration passes on its way into a data set."""

from __future__ import annotations

import numpy as np

from deepmd_mft.data.frames import Frames, Skipped

__all__ = ["MIN_DISTANCE", "check_frames"]

#: Two atoms closer than this (in Angstrom) lie on top of each other; H2 has 0.74.
MIN_DISTANCE = 0.3
#: A cell of less volume per atom (in cubic Angstrom) is no cell; diamond has 5.7.
MIN_VOLUME = 0.1

# Atom pairs looked at in one go, so that a batch needs some tens of megabytes.
_PAIRS = 1_000_000


def check_frames(frames: Frames, *, allow_nan: bool = False) -> tuple[Frames, list[Skipped]]:
    """Take out the configurations that would spoil a training.

    Parameters
    ----------
    frames : Frames
        As a reader yields them.
    allow_nan : bool
        Keep NaN targets, for a loss that masks them. Coordinates, energies and forces
        must be finite all the same.

    Returns
    -------
    good : Frames
        What is left.
    skipped : list of Skipped
        What was taken out, each with its reason.
    """
    reasons: dict[int, str] = {}

    def blame(bad: np.ndarray, reason: str) -> None:
        for i in np.flatnonzero(bad):
            reasons.setdefault(int(i), reason)

    blame(~_finite(frames.coords), "coordinates are not finite")
    for name, value in frames.labels.items():
        if not (allow_nan and name not in {"energy", "force", "virial"}):
            blame(~_finite(value), f"{name} is NaN or infinite")
    fractional = None
    if frames.cells is not None:
        volume = np.abs(np.linalg.det(np.nan_to_num(frames.cells)))
        blame(volume < MIN_VOLUME * len(frames.numbers), "the cell has no volume")
        fractional = frames.cells
    sound = np.array([i not in reasons for i in range(len(frames))], dtype=bool)
    if sound.any():
        close = np.zeros(len(frames), dtype=bool)
        cells = None if fractional is None else fractional[sound]
        close[sound] = _overlapping(frames.coords[sound], cells)
        blame(close, f"two atoms are closer than {MIN_DISTANCE} A")
    if not reasons:
        return frames, []
    keep = np.array([i not in reasons for i in range(len(frames))], dtype=bool)
    skipped = [Skipped(frames.ids[i], reason) for i, reason in sorted(reasons.items())]
    return frames.select(keep), skipped


def _finite(value: np.ndarray) -> np.ndarray:
    return np.asarray(np.isfinite(value.reshape(len(value), -1)).all(axis=1))


def _overlapping(coords: np.ndarray, cells: np.ndarray | None) -> np.ndarray:
    """Whether two atoms coincide, shape ``nf``.

    The nearest periodic image is taken in fractional coordinates, which is exact for the
    tiny distances that are asked about here.
    """
    nf, nloc, _ = coords.shape
    found = np.zeros(nf, dtype=bool)
    step = max(1, _PAIRS // nloc**2)
    upper = np.triu_indices(nloc, k=1)
    for start in range(0, nf, step):
        part = slice(start, start + step)
        if cells is None:
            # |a - b|^2 as one matrix product; about the centre it loses no digits.
            centred = coords[part] - coords[part].mean(axis=1, keepdims=True)
            norms = np.einsum("fix,fix->fi", centred, centred)
            square = norms[:, :, None] + norms[:, None, :]
            square -= 2.0 * centred @ centred.transpose(0, 2, 1)
            square[:, np.arange(nloc), np.arange(nloc)] = np.inf
            found[part] = square.reshape(len(square), -1).min(axis=1) < MIN_DISTANCE**2
        else:
            vectors = coords[part][:, upper[0]] - coords[part][:, upper[1]]
            fractions = vectors @ np.linalg.inv(cells[part])
            vectors = (fractions - np.round(fractions)) @ cells[part]
            square = np.einsum("fpx,fpx->fp", vectors, vectors)
            found[part] = (square < MIN_DISTANCE**2).any(axis=1)
    return found
