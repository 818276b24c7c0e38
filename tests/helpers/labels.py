"""Copies of the small embedded set with other labels, as deepmd/npy or LMDB."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import lmdb
import msgpack
import numpy as np

from tests.helpers.dp import DATA, TYPE_MAP

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SET = DATA / "valid"
NFRAMES = 60


def gaps() -> np.ndarray:
    """The labels of the first frames of the set, nframes x 1."""
    return np.load(SET / "set.000" / "gap.npy")[:NFRAMES]


def write_npy(folder: Path, labels: np.ndarray | None, name: str = "gap") -> Path:
    """Copy the set with other labels, or none."""
    shutil.copytree(SET, folder, ignore=shutil.ignore_patterns("gap.npy"))
    for path in (folder / "set.000").iterdir():
        np.save(path, np.load(path)[:NFRAMES])
    if labels is not None:
        np.save(folder / "set.000" / f"{name}.npy", labels)
    return folder


def encoded(array: np.ndarray) -> dict:
    return {"type": str(array.dtype), "shape": list(array.shape), "data": array.tobytes()}


def write_lmdb(folder: Path, labels: Sequence[np.ndarray | None], name: str = "gap") -> Path:
    """Write the set as LMDB, with a label per frame or None."""
    coords, types = (np.load(SET / "set.000" / f"{n}.npy") for n in ("coord", "real_atom_types"))
    frames = [
        (coord.reshape(-1, 3)[row >= 0].astype(np.float64), row[row >= 0].astype(np.int32))
        for coord, row in zip(coords, types, strict=True)
    ][: len(labels)]
    environment = lmdb.open(str(folder), map_size=2**24)
    with environment.begin(write=True) as transaction:
        for i, ((coord, row), label) in enumerate(zip(frames, labels, strict=True)):
            record = {
                "atom_numbs": np.bincount(row, minlength=5).tolist(),
                "atom_types": encoded(row),
                "coords": encoded(coord),
            }
            if label is not None:
                record[name] = encoded(np.asarray(label))
            transaction.put(f"{i:012d}".encode(), msgpack.packb(record))
        record = {
            "nframes": len(frames),
            "frame_idx_fmt": "012d",
            "type_map": TYPE_MAP,
            "system_info": {"natoms": []},
            "frame_nlocs": [len(row) for _, row in frames],
            "frame_system_ids": [0] * len(frames),
        }
        transaction.put(b"__metadata__", msgpack.packb(record))
    environment.close()
    return folder
