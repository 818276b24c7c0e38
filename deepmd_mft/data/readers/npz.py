"""npz archives of molecular dynamics: MD17, rMD17 and QM7-X style.

Positions ``R`` or ``coords``, numbers ``z``, ``Z`` or ``nuclear_charges`` (one list, or one a
frame padded with zeros), energies ``E`` or ``energies``, forces ``F`` or ``forces``.
"""

from __future__ import annotations

import zipfile
import zlib
from typing import TYPE_CHECKING

import numpy as np

from deepmd_mft.data.frames import Frames, Source
from deepmd_mft.data.units import energy_factor, force_factor, length_factor
from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deepmd_mft.data.readers import ReadOptions

__all__ = ["read_npz"]

_KEYS = {
    "coords": ("R", "coords"),
    "numbers": ("z", "Z", "nuclear_charges"),
    "energy": ("E", "energies"),
    "force": ("F", "forces"),
}


def read_npz(path: Path, options: ReadOptions) -> Source:
    """Read the archive; it states no units, so ``--energy-unit`` must be given."""
    if options.energy_unit is None:
        raise UserError(
            f"{path} does not say its units; give --energy-unit (MD17 and rMD17 are in "
            "kcal/mol, QM7-X in eV) and, if they differ, --force-unit and --length-unit"
        )
    length_unit = options.length_unit or "angstrom"
    force_unit = options.force_unit or f"{options.energy_unit}/{length_unit}"
    factors = {
        "coords": length_factor(length_unit),
        "energy": energy_factor(options.energy_unit),
        "force": force_factor(force_unit),
    }
    try:
        with np.load(path) as archive:
            arrays = {
                name: archive[key]
                for name, keys in _KEYS.items()
                for key in keys
                if key in archive.files
            }
            found = archive.files
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: not a complete npz archive ({error})") from error
    for name in ("coords", "numbers"):
        if name not in arrays:
            raise UserError(f"{path}: no {' or '.join(_KEYS[name])}; there are {found}")
    for name, factor in factors.items():
        if name in arrays:
            arrays[name] = arrays[name].astype(np.float64) * factor
    notes = [f"energies read as {options.energy_unit}, forces as {force_unit}"]
    frames = _frames(path.stem, arrays)
    return Source("npz", [path], {}, frames, len(arrays["coords"]), notes)


def _frames(stem: str, arrays: dict[str, np.ndarray]) -> Iterator[Frames]:
    """Yield frame by frame if the molecules differ, else in blocks."""
    numbers, coords = arrays["numbers"], arrays["coords"]
    step = 1 if numbers.ndim == 2 else 1000
    for start in range(0, len(coords), step):
        part = slice(start, start + step)
        kinds = numbers[start] if numbers.ndim == 2 else numbers
        real = np.flatnonzero(kinds)
        labels = {}
        if "energy" in arrays:
            labels["energy"] = arrays["energy"][part].reshape(-1)
        if "force" in arrays:
            labels["force"] = arrays["force"][part][:, real]
        positions = coords[part][:, real]
        yield Frames(
            numbers=kinds[real].astype(np.int64),
            coords=positions,
            labels=labels,
            ids=[f"{stem}:{start + i}" for i in range(len(positions))],
        )
