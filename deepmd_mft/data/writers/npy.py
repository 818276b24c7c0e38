"""deepmd/npy, mixed type: one system for each number of atoms.

The layout of the MFT paper's published inputs and of dpdata's ``deepmd/npy/mixed``::

    OUT/29/type.raw               zeros, one a line
    OUT/29/type_map.raw           elements
    OUT/29/nopbc                  for molecules
    OUT/29/set.000/coord.npy, real_atom_types.npy, box.npy, energy.npy, gap.npy, ...

Frames with the same number of atoms but other labels, or another periodicity, go to
``29-2``, ``29-3``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

import numpy as np
from numpy.lib import format as npy_format

from deepmd_mft.data.writers.base import Writer

if TYPE_CHECKING:
    from pathlib import Path

    from deepmd_mft.data.frames import Frames

__all__ = ["NpyWriter"]

# Data waiting to be written, in bytes, over all systems.
_BUFFER = 96 * 2**20
# What a waiting array costs beside its data.
_OVERHEAD = 300


@dataclass
class _System:
    """Frames of one atom count on their way to disk."""

    folder: Path
    natoms: int
    periodic: bool
    frames: int = 0
    waiting: dict[str, list[np.ndarray]] = field(default_factory=dict)


class NpyWriter(Writer):
    """Appends to ``.npy`` files, so that memory does not grow with the data set."""

    kind = "npy"

    def _open(self) -> None:
        self._systems: dict[tuple[object, ...], _System] = {}
        self._names: dict[int, int] = {}
        self._waiting = 0

    def _put(self, frames: Frames, types: np.ndarray) -> tuple[str, int]:
        nf, natoms = len(frames), len(frames.numbers)
        system = self._system(frames)
        arrays = {
            "coord": frames.coords.reshape(nf, -1),
            "real_atom_types": np.broadcast_to(types, (nf, natoms)),
        }
        if frames.cells is not None:
            arrays["box"] = frames.cells.reshape(nf, 9)
        arrays.update({name: value.reshape(nf, -1) for name, value in frames.labels.items()})
        for name, array in arrays.items():
            system.waiting.setdefault(name, []).append(array)
            self._waiting += array.size * 8 + _OVERHEAD
        first = system.frames
        system.frames += nf
        if self._waiting > _BUFFER:
            self._flush()
        return system.folder.name, first

    def _system(self, frames: Frames) -> _System:
        natoms, periodic = len(frames.numbers), frames.cells is not None
        key = (natoms, periodic, *sorted((k, v.shape[1:]) for k, v in frames.labels.items()))
        system = self._systems.get(key)
        if system is None:
            variant = self._names[natoms] = self._names.get(natoms, 0) + 1
            name = str(natoms) if variant == 1 else f"{natoms}-{variant}"
            system = _System(self.folder / name, natoms, periodic)
            (system.folder / "set.000").mkdir(parents=True)
            self._systems[key] = system
        return system

    def _flush(self) -> None:
        for system in self._systems.values():
            for name, arrays in system.waiting.items():
                dtype = np.int32 if name == "real_atom_types" else np.float64
                block = np.concatenate(arrays, axis=0, dtype=dtype)
                _append(system.folder / "set.000" / f"{name}.npy", block)
            system.waiting.clear()
        self._waiting = 0

    def _finish(self) -> None:
        self._flush()
        type_map = "".join(f"{symbol}\n" for symbol in self.type_map)
        for system in self._systems.values():
            for path in (system.folder / "set.000").iterdir():
                _seal(path, system.frames)
            (system.folder / "type_map.raw").write_text(type_map)
            if not system.periodic:
                (system.folder / "nopbc").touch()
            # deepmd-kit finds a system by its type.raw: written last.
            (system.folder / "type.raw").write_text("0\n" * system.natoms)


def _header(handle: IO[bytes], columns: int, rows: int, dtype: np.dtype) -> None:
    npy_format.write_array_header_1_0(
        handle,
        {
            "descr": npy_format.dtype_to_descr(dtype),
            "fortran_order": False,
            "shape": (rows, columns),
        },
    )


def _append(path: Path, block: np.ndarray) -> None:
    """Append rows to a file that will be an ``.npy`` file once sealed."""
    new = not path.exists()
    with path.open("ab") as handle:
        if new:
            _header(handle, block.shape[1], 0, block.dtype)
        handle.write(block.tobytes())


def _seal(path: Path, rows: int) -> None:
    """Write the number of rows into the header of an appended file.

    numpy pads the header so that the first axis can grow without moving the data.
    """
    with path.open("r+b") as handle:
        npy_format.read_magic(handle)
        shape, _, dtype = npy_format.read_array_header_1_0(handle)
        data = handle.tell()
        handle.seek(0)
        _header(handle, shape[1], rows, dtype)
        if handle.tell() != data:
            raise RuntimeError(f"numpy changed the size of the header of {path}")
