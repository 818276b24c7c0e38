"""npz archives of molecular dynamics: MD17, rMD17 and QM7-X style.

Positions ``R`` or ``coords``, numbers ``z``, ``Z`` or ``nuclear_charges`` (one list, or one per
frame padded with zeros), energies ``E`` or ``energies``, forces ``F`` or ``forces``.
"""

from __future__ import annotations

import zipfile
import zlib
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING

import numpy as np
from numpy.lib import format as npy_format

from deepmd_mft.data.frames import Frames, Source
from deepmd_mft.data.units import energy_factor, force_factor, length_factor
from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from typing_extensions import Self

    from deepmd_mft.data.readers import ReadOptions

__all__ = ["read_npz"]

_KEYS = {
    "coords": ("R", "coords"),
    "numbers": ("z", "Z", "nuclear_charges"),
    "energy": ("E", "energies"),
    "force": ("F", "forces"),
}
_CELLS = ("cell", "cells", "lattice", "box")
# Frames read in one go, and bytes of one array.
_STEP, _BLOCK = 1000, 2**24
# Of one read, in bytes: a header can claim any shape.
_LARGEST = 2**28


class _Array:
    """An array of the archive, read a few rows at a time; use as a context manager."""

    def __init__(self, archive: zipfile.ZipFile, name: str) -> None:
        self.name = f"{archive.filename}, {name}"
        self._handle: IO[bytes] = archive.open(f"{name}.npy")
        version = npy_format.read_magic(self._handle)
        header = npy_format.read_array_header_1_0
        if version != (1, 0):
            header = npy_format.read_array_header_2_0
        self.shape, fortran, self.dtype = header(self._handle)
        if self.dtype.kind not in "iuf":
            raise UserError(f"{self.name} holds {self.dtype}, expected numbers")
        if fortran and len(self.shape) > 1:
            raise UserError(
                f"{self.name} is in Fortran order; save it as numpy.ascontiguousarray(...)"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._handle.close()

    @property
    def row_bytes(self) -> int:
        """What one row needs, as the header claims."""
        return int(np.prod(self.shape[1:], dtype=object)) * self.dtype.itemsize

    def read(self, rows: int) -> np.ndarray:
        """Read the next ``rows`` rows."""
        size = rows * self.row_bytes
        if size > _LARGEST:
            raise UserError(f"{self.name} claims shape {self.shape}, too large for molecules")
        try:
            data = self._handle.read(size)
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(f"{self.name} is damaged ({error}); fetch it again") from error
        if len(data) < size:
            raise UserError(f"{self.name} ends before its {self.shape[0]:,} rows; fetch it again")
        return np.frombuffer(data, self.dtype).reshape(rows, *self.shape[1:])


def read_npz(path: Path, options: ReadOptions) -> Source:
    """Read the archive; it states no units, so ``--energy-unit`` must be given."""
    if options.energy_unit is None:
        raise UserError(
            f"{path} does not say its units; give --energy-unit (MD17 and rMD17 are in "
            "kcal/mol, QM7-X in eV) and, if they differ, --force-unit and --length-unit"
        )
    options.refuse_properties("npz")
    length_unit = options.length_unit or "angstrom"
    force_unit = options.force_unit or f"{options.energy_unit}/{length_unit}"
    factors = {
        "coords": length_factor(length_unit),
        "energy": energy_factor(options.energy_unit),
        "force": force_factor(force_unit),
    }
    try:
        with ExitStack() as stack:
            arrays = _open(stack, path, no_cell=options.no_cell)
            shape = arrays["coords"].shape
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: not a complete npz archive ({error})") from error
    if len(shape) != 3:
        raise UserError(f"{path}: positions of shape {shape}, expected frames x atoms x 3")
    notes = [f"energies read as {options.energy_unit}, forces as {force_unit}"]
    return Source("npz", [path], {}, _frames(path, shape[0], factors), shape[0], notes)


def _open(stack: ExitStack, path: Path, *, no_cell: bool) -> dict[str, _Array]:
    archive = stack.enter_context(zipfile.ZipFile(path))
    found = [name.removesuffix(".npy") for name in archive.namelist()]
    cell = next((name for name in found if name in _CELLS), None)
    if cell and not no_cell:
        raise UserError(
            f"{path} holds {cell!r}, and npz archives are read as molecules; write crystals to "
            "extxyz, or give --no-cell if these are molecules"
        )
    arrays = {}
    for name, keys in _KEYS.items():
        key = next((key for key in keys if key in found), None)
        if key is not None:
            arrays[name] = stack.enter_context(_Array(archive, key))
    for name in ("coords", "numbers"):
        if name not in arrays:
            raise UserError(f"{path}: no {' or '.join(_KEYS[name])}; there are {found}")
    total = arrays["coords"].shape[:1]
    for name, array in arrays.items():
        if array.shape[:1] != total and not (name == "numbers" and len(array.shape) == 1):
            raise UserError(f"{array.name} has shape {array.shape}, for {total} frames")
    return arrays


def _frames(path: Path, total: int, factors: dict[str, float]) -> Iterator[Frames]:
    """Yield frame by frame if the molecules differ, else in blocks."""
    with ExitStack() as stack:
        arrays = _open(stack, path, no_cell=True)  # cells were refused before
        numbers = arrays.pop("numbers")
        same = numbers.read(numbers.shape[0]) if len(numbers.shape) == 1 else None
        step = max(1, min(_STEP, _BLOCK // max(1, *(array.row_bytes for array in arrays.values()))))
        for start in range(0, total, step):
            rows = min(step, total - start)
            block = {
                name: array.read(rows).astype(np.float64) * factors[name]
                for name, array in arrays.items()
            }
            for name in {"coords", "force"} & set(block):
                if block[name].shape[1:2] != numbers.shape[-1:]:
                    raise UserError(
                        f"{arrays[name].name} has shape {arrays[name].shape}, but {numbers.name} "
                        f"lists {numbers.shape[-1]} atoms"
                    )
            if same is not None:
                yield _molecules(path.stem, start, same, block)
                continue
            for i, padded in enumerate(numbers.read(rows)):
                one = {name: values[i : i + 1] for name, values in block.items()}
                yield _molecules(path.stem, start + i, np.trim_zeros(padded, "b"), one)


def _molecules(stem: str, start: int, numbers: np.ndarray, block: dict[str, np.ndarray]) -> Frames:
    """Make frames of one list of atoms; padding after the last of them is left out."""
    nloc = len(numbers)
    coords = block["coords"][:, :nloc]
    labels = {}
    if "energy" in block:
        labels["energy"] = block["energy"].reshape(len(coords))
    if "force" in block:
        labels["force"] = block["force"][:, :nloc]
    return Frames(
        numbers=numbers.astype(np.int64),
        coords=coords,
        labels=labels,
        ids=[f"{stem}:{start + i}" for i in range(len(coords))],
    )
