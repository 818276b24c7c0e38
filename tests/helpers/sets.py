"""Small labelled sets in every layout that deepmd-kit reads, and a reader of their raw files.

Nothing here uses the package, so that what it reads and writes can be compared with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import lmdb
import msgpack
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

SYMBOLS = {"H": 1, "He": 2, "C": 6, "N": 7, "O": 8, "F": 9, "Na": 11, "Cl": 17, "K": 19}
TYPE_MAP = ["H", "C", "N", "O", "F"]


@dataclass
class Frame:
    """One structure with its label.

    Parameters
    ----------
    numbers : list of int
        Atomic numbers.
    coords : np.ndarray
        natoms x 3, in Angstrom; the first coordinate tells frames apart.
    gap : float
        NaN where it is missing.
    box : np.ndarray, optional
        3 x 3.
    """

    numbers: list[int]
    coords: np.ndarray
    gap: float
    box: np.ndarray | None = None


def molecules(n: int = 12) -> list[Frame]:
    """Return small molecules of three formulas of four atoms and one of six, in turn."""
    rng = np.random.default_rng(11)
    kinds = ([6, 1, 1, 8], [7, 1, 1, 1], [9, 6, 1, 7], [6, 6, 1, 1, 8, 9])
    frames = []
    for i in range(n):
        numbers = kinds[i % len(kinds)]
        grid = np.array([[0, 0, 0], [1.1, 0, 0], [0, 1.2, 0], [0, 0, 1.3], [1.1, 1.1, 0.9]])
        grid = np.concatenate([grid, [[-1.0, 0.4, 0.2]]])[: len(numbers)]
        coords = np.round(grid + 0.05 * rng.normal(size=grid.shape) + 0.01 * i, 6)
        frames.append(Frame(list(numbers), coords, round(0.1 + 0.02 * i, 6)))
    return frames


# --- writing --------------------------------------------------------------------------------------


def _save(folder: Path, frames: list[Frame], *, mixed: bool, label: str, dtype: Any) -> None:
    folder.mkdir(parents=True)
    np.save(folder / "coord.npy", np.array([f.coords.reshape(-1) for f in frames], dtype))
    if frames[0].box is not None:
        np.save(folder / "box.npy", np.array([f.box.reshape(-1) for f in frames], dtype))
    if mixed:
        types = [[TYPE_MAP.index(_symbol(z)) for z in f.numbers] for f in frames]
        np.save(folder / "real_atom_types.npy", np.array(types, np.int32))
    gap = np.array([f.gap for f in frames], dtype)
    if not np.isnan(gap).all():
        np.save(folder / "gap.npy", gap if label == "flat" else gap[:, None])


def _symbol(number: int) -> str:
    return next(symbol for symbol, z in SYMBOLS.items() if z == number)


def write_system(
    folder: Path,
    frames: list[Frame],
    *,
    mixed: bool = False,
    sets: int = 1,
    type_map: bool = True,
    label: str = "column",
    dtype: Any = np.float64,
) -> None:
    """Write frames of one atom count (of one formula, unless ``mixed``) as a deepmd/npy system.

    A set whose labels are all NaN gets no ``gap.npy``.
    """
    for number, part in enumerate(np.array_split(np.arange(len(frames)), sets)):
        chosen = [frames[i] for i in part]
        _save(folder / f"set.{number:03d}", chosen, mixed=mixed, label=label, dtype=dtype)
    types = [0 if mixed else TYPE_MAP.index(_symbol(z)) for z in frames[0].numbers]
    (folder / "type.raw").write_text("".join(f"{t}\n" for t in types))
    if type_map:
        (folder / "type_map.raw").write_text("".join(f"{symbol}\n" for symbol in TYPE_MAP))
    if frames[0].box is None:
        (folder / "nopbc").touch()


def by_count(frames: list[Frame]) -> dict[str, list[Frame]]:
    """Divide by number of atoms."""
    parts: dict[str, list[Frame]] = {}
    for frame in frames:
        parts.setdefault(str(len(frame.numbers)), []).append(frame)
    return parts


def by_formula(frames: list[Frame]) -> dict[str, list[Frame]]:
    """Divide by list of elements."""
    kinds = {tuple(frame.numbers): f"{len(frame.numbers)}atoms" for frame in frames}
    names = {kind: f"{name}-{number}" for number, (kind, name) in enumerate(kinds.items())}
    parts: dict[str, list[Frame]] = {}
    for frame in frames:
        parts.setdefault(names[tuple(frame.numbers)], []).append(frame)
    return parts


def _array(value: Any, dtype: Any) -> dict[str, Any]:
    array = np.ascontiguousarray(value, dtype)
    return {"type": array.dtype.str, "shape": list(array.shape), "data": array.tobytes()}


def write_lmdb(folder: Path, frames: list[Frame]) -> None:
    """Write deepmd-kit's LMDB; a record without a label is one whose gap is NaN and odd.

    Frames whose label is missing take turns in having NaN and having no entry at all.
    """
    env = lmdb.open(str(folder), map_size=2**24)
    missing = 0
    with env.begin(write=True) as transaction:
        for i, frame in enumerate(frames):
            record = {
                "atom_types": _array([TYPE_MAP.index(_symbol(z)) for z in frame.numbers], "<i4"),
                "coords": _array(frame.coords, "<f8"),
                "gap": _array([frame.gap], "<f8"),
            }
            if frame.box is not None:
                record["cells"] = _array(frame.box, "<f8")
            if np.isnan(frame.gap):
                missing += 1
                if missing % 2 == 0:
                    del record["gap"]
            transaction.put(format(i, "012d").encode(), msgpack.packb(record, use_bin_type=True))
        metadata = {
            "nframes": len(frames),
            "frame_idx_fmt": "012d",
            "type_map": TYPE_MAP,
            "system_info": {"natoms": []},
            "frame_nlocs": [len(frame.numbers) for frame in frames],
            "frame_system_ids": [0] * len(frames),
        }
        transaction.put(b"__metadata__", msgpack.packb(metadata, use_bin_type=True))
    env.close()
    (folder / "lock.mdb").unlink()


LAYOUTS = (
    "mixed",
    "plain",
    "nested",
    "two sets",
    "flat labels",
    "single precision",
    "no type map",
    "linked",
    "linked set",
    "lmdb",
)


def write_set(folder: Path, layout: str, frames: list[Frame]) -> Path:
    """Write a set in one of :data:`LAYOUTS`; return its path."""
    if layout == "lmdb":
        write_lmdb(folder.with_suffix(".lmdb"), frames)
        return folder.with_suffix(".lmdb")
    mixed = layout in ("mixed", "two sets", "linked")
    parts = by_count(frames) if mixed else by_formula(frames)
    home = folder
    if layout.startswith("linked"):
        home = folder.parent / f"{folder.name}-elsewhere"
    elif layout == "nested":
        home = folder / "a" / "b"
    for name, part in parts.items():
        write_system(
            home / name,
            part,
            mixed=mixed,
            sets=2 if layout == "two sets" else 1,
            type_map=layout != "no type map",
            label="flat" if layout == "flat labels" else "column",
            dtype=np.float32 if layout == "single precision" else np.float64,
        )
    if layout == "linked":
        folder.mkdir()
        for name in parts:
            (folder / name).symlink_to(home / name)
    elif layout == "linked set":
        folder.symlink_to(home)
    return folder


# --- reading --------------------------------------------------------------------------------------


def read_set(folder: Path, label: str = "gap") -> list[Frame]:
    """Read all frames of a set from its raw files, in the order of systems, sets and frames."""
    if (folder / "data.mdb").is_file():
        return _read_lmdb(folder, label)
    systems = sorted({path.parent for path in _walk(folder) if path.name == "type.raw"})
    return [frame for system in systems for frame in _read_system(system, label)]


def _walk(folder: Path) -> list[Path]:
    found = []
    for path in sorted(folder.iterdir()):
        found += _walk(path) if path.is_dir() else [path]
    return found


def _read_system(system: Path, label: str) -> list[Frame]:
    file = system / "type_map.raw"
    names = file.read_text().split() if file.is_file() else TYPE_MAP
    own = np.loadtxt(system / "type.raw", dtype=int, ndmin=1)
    frames = []
    for folder in sorted(system.glob("set.*")):
        arrays = {path.stem: np.load(path) for path in folder.glob("*.npy")}
        for i, coords in enumerate(arrays["coord"]):
            types = arrays["real_atom_types"][i] if "real_atom_types" in arrays else own
            box = None if (system / "nopbc").is_file() else arrays["box"][i].reshape(3, 3)
            gap = float(arrays[label].reshape(-1)[i]) if label in arrays else np.nan
            numbers = [SYMBOLS[names[t]] for t in types]
            frames.append(Frame(numbers, coords.reshape(-1, 3), gap, box))
    return frames


def _read_lmdb(folder: Path, label: str) -> list[Frame]:
    env = lmdb.open(str(folder), readonly=True, lock=False)
    with env.begin() as transaction:
        records = {key: msgpack.unpackb(value) for key, value in transaction.cursor()}
    env.close()
    names = records.pop(b"__metadata__")["type_map"]
    frames = []
    for _, record in sorted(records.items()):
        arrays = {
            name: np.frombuffer(value["data"], value["type"]).reshape(value["shape"])
            for name, value in record.items()
            if isinstance(value, dict)
        }
        box = arrays.get("cells", np.zeros((3, 3))).reshape(3, 3)
        gap = float(arrays[label].reshape(-1)[0]) if label in arrays else np.nan
        numbers = [SYMBOLS[names[t]] for t in arrays["atom_types"]]
        frames.append(
            Frame(numbers, arrays["coords"].reshape(-1, 3), gap, box if box.any() else None)
        )
    return frames


def assert_same(found: list[Frame], expected: list[Frame], atol: float = 0.0) -> None:
    """Compare frame by frame, after both are sorted by coordinates, cell and label."""
    assert len(found) == len(expected)

    def key(frame: Frame) -> tuple[float, ...]:
        box = np.zeros(9) if frame.box is None else frame.box.reshape(-1)
        numbers = [*frame.coords.reshape(-1)[:4], *box, frame.gap]
        return tuple(np.round(np.nan_to_num(numbers, nan=-1.0), 4).tolist())

    for one, other in zip(sorted(found, key=key), sorted(expected, key=key), strict=True):
        assert list(one.numbers) == list(other.numbers)
        np.testing.assert_allclose(one.coords, other.coords, rtol=0, atol=atol)
        np.testing.assert_allclose(one.gap, other.gap, rtol=0, atol=atol)
        assert (one.box is None) == (other.box is None)
        if one.box is not None and other.box is not None:
            np.testing.assert_allclose(one.box, other.box, rtol=0, atol=atol)
