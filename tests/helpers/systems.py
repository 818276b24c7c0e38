"""deepmd systems and LMDBs written by hand, to be right or wrong as a test needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h5py
import lmdb
import msgpack
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path


def write_system(
    path: Path,
    *,
    nframes: int = 3,
    symbols: str = "C H H H H",
    cell: np.ndarray | None = None,
    seed: int = 0,
    **labels: Any,
) -> Path:
    """Write one npy system of random structures; ``labels`` are saved as they are."""
    names = symbols.split()
    type_map = sorted(set(names))
    folder = path / "set.000"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), -1).reshape(-1, 3)
    coords = 1.5 * grid[: len(names)] + 0.1 * rng.normal(size=(nframes, len(names), 3))
    np.save(folder / "coord.npy", coords.reshape(nframes, -1))
    (path / "type.raw").write_text("\n".join(str(type_map.index(name)) for name in names) + "\n")
    (path / "type_map.raw").write_text("\n".join(type_map) + "\n")
    if cell is None:
        (path / "nopbc").touch()
    else:
        np.save(folder / "box.npy", np.broadcast_to(cell, (nframes, 3, 3)).reshape(nframes, 9))
    for name, values in labels.items():
        np.save(folder / f"{name}.npy", values)
    return path


def record(natoms: int = 3, **values: Any) -> dict[str, Any]:
    """A record of an LMDB: a bent chain of H, with further arrays."""
    coords = np.stack([np.arange(natoms) * 1.1, np.arange(natoms) % 2, np.zeros(natoms)], axis=1)
    return {"coords": coords, "atom_types": np.zeros(natoms, dtype=np.int64), **values}


def write_lmdb(path: Path, records: list[dict[str, Any]], type_map: str = "H C N O F") -> Path:
    """Write records as deepmd-kit's LMDB; arrays are encoded, other values packed as they are."""
    environment = lmdb.open(str(path), map_size=2**26)
    with environment.begin(write=True) as transaction:
        for number, one in enumerate(records):
            packed = {key: _encoded(value) for key, value in one.items()}
            transaction.put(format(number, "012d").encode(), msgpack.packb(packed))
        meta = {
            "nframes": len(records),
            "frame_idx_fmt": "012d",
            "type_map": type_map.split(),
            "system_info": {"natoms": []},
            "frame_nlocs": [len(one["atom_types"]) for one in records],
        }
        transaction.put(b"__metadata__", msgpack.packb(meta))
    environment.close()
    (path / "lock.mdb").unlink(missing_ok=True)
    return path


def _encoded(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    return {"type": str(value.dtype), "shape": list(value.shape), "data": value.tobytes()}


def as_hdf5(system: Path, file: Path) -> str:
    """Copy a system into a group of an HDF5 file; return its name for deepmd-kit."""
    with h5py.File(file, "w") as out:
        group = out.create_group("system")
        group["type.raw"] = np.loadtxt(system / "type.raw", dtype=int)
        group["type_map.raw"] = np.array((system / "type_map.raw").read_text().split(), dtype="S")
        if (system / "nopbc").is_file():
            group["nopbc"] = True
        for path in system.glob("set.*/*.npy"):
            group[str(path.relative_to(system))] = np.load(path)
    return f"{file}#/system"
