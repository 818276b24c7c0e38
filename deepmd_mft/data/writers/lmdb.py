"""deepmd-kit's own LMDB layout: one msgpack record a frame, for large sets.

Read off ``deepmd/dpmodel/utils/lmdb_data.py`` of deepmd-kit 3.2 and dpdata's
``deepmd/lmdb``: keys are 12-digit frame numbers, arrays are stored as
``{"type", "shape", "data"}``, and ``__metadata__`` holds the number of frames, the type
map and the atom counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lmdb
import msgpack
import numpy as np

from deepmd_mft.data.writers.base import Writer
from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from deepmd_mft.data.frames import Frames

__all__ = ["DISK_NAMES", "LmdbWriter", "metadata", "open_new"]

#: deepmd-kit's plural names of the force-field labels.
DISK_NAMES = {"energy": "energies", "force": "forces", "virial": "virials"}

_FORMAT = "012d"
_MAP_SIZE = 2**40  # sparse: the file grows with the data
_COMMIT = 1000


def metadata(type_map: list[str] | None, frame_nlocs: np.ndarray) -> bytes:
    """Encode the ``__metadata__`` record.

    Parameters
    ----------
    type_map : list of str
        Elements.
    frame_nlocs : np.ndarray
        Number of atoms of every frame.
    """
    record = {
        "nframes": len(frame_nlocs),
        "frame_idx_fmt": _FORMAT,
        "type_map": type_map,
        "system_info": {"natoms": []},
        "frame_nlocs": frame_nlocs.tolist(),
        "frame_system_ids": [0] * len(frame_nlocs),
    }
    return bytes(msgpack.packb(record, use_bin_type=True))


def open_new(folder: Path) -> lmdb.Environment:
    """Open an LMDB for writing that nobody else knows of yet.

    It needs no lock. LMDB would map one into memory, and writing to it on a full disk kills the
    process (SIGBUS).
    """
    return lmdb.open(str(folder), map_size=_MAP_SIZE, sync=False, lock=False)


class LmdbWriter(Writer):
    """Writes ``OUT/data.mdb``; ``OUT`` must end in ``.lmdb`` for deepmd-kit to know it."""

    kind = "lmdb"
    prefixes = ("find_", "atomic_")

    def _open(self) -> None:
        self._env = open_new(self.folder)
        self._transaction: lmdb.Transaction | None = self._env.begin(write=True)
        self._nlocs: list[int] = []
        self._periodic: bool | None = None

    def _put(self, frames: Frames, types: np.ndarray) -> tuple[str, int]:
        periodic = frames.cells is not None
        if self._periodic not in (None, periodic):
            raise UserError(
                f"{frames.ids[0]}: periodic and molecular structures cannot share an LMDB, "
                "because deepmd-kit puts them into one batch; write deepmd/npy (a name without "
                ".lmdb), or convert each kind alone with --only periodic and --only molecular"
            )
        self._periodic = periodic
        first = len(self._nlocs)
        atoms = {
            "atom_numbs": np.bincount(types, minlength=len(self.type_map)).tolist(),
            "atom_types": _encoded(types[None])[0],
        }
        arrays = {"coords": _encoded(frames.coords)}
        if frames.cells is not None:
            arrays["cells"] = _encoded(frames.cells)
        for name, value in frames.labels.items():
            arrays[DISK_NAMES.get(name, name)] = _encoded(value)
        for i in range(len(frames)):
            record = {**atoms, **{name: array[i] for name, array in arrays.items()}}
            self.put_raw(bytes(msgpack.packb(record, use_bin_type=True)), len(types))
        return "", first

    def put_raw(self, record: bytes, natoms: int) -> None:
        """Append one encoded frame."""
        index = len(self._nlocs)
        assert self._transaction is not None  # noqa: S101 - between _open and _finish
        self._transaction.put(format(index, _FORMAT).encode(), record)
        self._nlocs.append(natoms)
        if (index + 1) % _COMMIT == 0:
            self._transaction.commit()
            self._transaction = self._env.begin(write=True)

    def _finish(self) -> None:
        assert self._transaction is not None  # noqa: S101 - between _open and _finish
        self._transaction.put(
            b"__metadata__", metadata(self.type_map, np.array(self._nlocs, dtype=np.int32))
        )
        self._transaction.commit()
        self._transaction = None
        self._env.sync(True)

    def _close(self) -> None:
        transaction = getattr(self, "_transaction", None)
        if transaction is not None:
            transaction.abort()
        if getattr(self, "_env", None) is not None:
            self._env.close()


def _encoded(array: np.ndarray) -> list[dict[str, Any]]:
    """Encode every entry along the first axis."""
    kind, shape = str(array.dtype), list(array.shape[1:])
    return [{"type": kind, "shape": shape, "data": entry.tobytes()} for entry in array]
