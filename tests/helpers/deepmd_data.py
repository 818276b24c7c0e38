"""Data sets in every layout that deepmd-kit reads, made of arrays that a test knows by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import lmdb
import msgpack
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

TYPE_MAP = ["H", "C", "O"]
NUMBERS = np.array([1, 6, 8])


@dataclass
class Frame:
    """One structure and its labels by hand; a label that is None is missing."""

    types: np.ndarray  # nloc, in TYPE_MAP
    coord: np.ndarray  # nloc x 3
    box: np.ndarray | None  # 3 x 3
    labels: dict[str, np.ndarray | None]


def make_frames(
    n: int, natoms: int = 4, *, periodic: bool = False, seed: int = 0, equal: bool = True
) -> list[Frame]:
    """Make frames with ``energy``, ``force``, ``gap`` (1), ``pair`` (2) and ``fparam`` (2).

    Parameters
    ----------
    n, natoms : int
        Frames and atoms.
    periodic : bool
        In a right-handed, skewed cell.
    seed : int
        Of the draw.
    equal : bool
        All of one formula, as a system that is not mixed has to be.
    """
    rng = np.random.default_rng(seed)
    types = np.sort(rng.integers(0, 3, natoms))
    frames = []
    for _ in range(n):
        own = types if equal else rng.integers(0, 3, natoms)
        box = 8.0 * np.eye(3) + rng.normal(scale=0.5, size=(3, 3)) if periodic else None
        labels = {
            "energy": rng.normal(size=1),
            "force": rng.normal(size=3 * natoms),
            "gap": rng.normal(size=1),
            "pair": rng.normal(size=2),
            "fparam": rng.normal(size=2),
        }
        frames.append(Frame(own, 1.5 * rng.normal(size=(natoms, 3)), box, labels))
    return frames


def write_system(
    folder: Path,
    sets: Sequence[Sequence[Frame]],
    *,
    mixed: bool = False,
    padding: int = 0,
    type_map: bool = True,
) -> Path:
    """Write a deepmd/npy system with one ``set.*`` for each list of frames.

    A label that all frames of a set lack has no file there; one that some lack is NaN.

    Parameters
    ----------
    folder : Path
        The system.
    sets : sequence of list of Frame
    mixed : bool
        With ``real_atom_types.npy``.
    padding : int
        Virtual atoms at the end of every frame, for mixed systems.
    type_map : bool
        Write ``type_map.raw``.
    """
    folder.mkdir(parents=True)
    first = sets[0][0]
    types = [0] * (len(first.types) + padding) if mixed else first.types.tolist()
    (folder / "type.raw").write_text("".join(f"{t}\n" for t in types))
    if type_map:
        (folder / "type_map.raw").write_text("\n".join(TYPE_MAP) + "\n")
    if first.box is None:
        (folder / "nopbc").touch()
    for number, frames in enumerate(sets):
        target = folder / f"set.{number:03d}"
        target.mkdir()
        coords = [np.pad(f.coord, ((0, padding), (0, 0))).reshape(-1) for f in frames]
        np.save(target / "coord.npy", np.array(coords))
        if mixed:
            kinds = [np.pad(f.types, (0, padding), constant_values=-1) for f in frames]
            np.save(target / "real_atom_types.npy", np.array(kinds, dtype=np.int32))
        if first.box is not None:
            np.save(target / "box.npy", np.array([f.box.reshape(-1) for f in frames]))
        for name in first.labels:
            known = [f.labels[name] for f in frames if f.labels[name] is not None]
            if known:
                gap = np.full_like(known[0], np.nan)
                values = [gap if f.labels[name] is None else f.labels[name] for f in frames]
                np.save(target / f"{name}.npy", np.array(values))
    return folder


def write_lmdb(folder: Path, frames: Sequence[Frame], *, type_map: bool = True) -> Path:
    """Write a deepmd LMDB; a label that a frame lacks is not in its record."""
    folder.mkdir(parents=True)
    names = {"energy": "energies", "force": "forces"}

    def encoded(array: np.ndarray) -> dict[str, object]:
        return {"type": str(array.dtype), "shape": list(array.shape), "data": array.tobytes()}

    with (
        lmdb.open(str(folder), map_size=2**26) as environment,
        environment.begin(write=True) as transaction,
    ):
        for number, frame in enumerate(frames):
            record = {
                "atom_types": encoded(frame.types.astype(np.int64)),
                "coords": encoded(frame.coord),
            }
            if frame.box is not None:
                record["cells"] = encoded(frame.box)
            for name, values in frame.labels.items():
                if values is not None:
                    shaped = values.reshape(-1, 3) if name == "force" else values
                    record[names.get(name, name)] = encoded(shaped)
            transaction.put(format(number, "012d").encode(), msgpack.packb(record))
        meta = {
            "nframes": len(frames),
            "frame_idx_fmt": "012d",
            "system_info": {"natoms": []},
            "frame_nlocs": [len(frame.types) for frame in frames],
        }
        if type_map:
            meta["type_map"] = TYPE_MAP
        transaction.put(b"__metadata__", msgpack.packb(meta))
    return folder


def without(frames: list[Frame], *names: str) -> list[Frame]:
    """Take labels away from frames; return them."""
    for frame in frames:
        for name in names:
            frame.labels[name] = None
    return frames


#: Layouts for a matrix of tests; every one holds the same kinds of labels.
LAYOUTS = (
    "npy",
    "npy crystals",
    "mixed",
    "mixed with padding",
    "no type map",
    "linked systems",
    "folder per atom count",
    "two sets",
    "label missing in an entry",
    "label missing in a set",
    "label missing in a system",
    "lmdb",
    "lmdb crystals",
    "lmdb with missing labels",
)


def write_layout(kind: str, folder: Path) -> list[Frame]:
    """Write a set in one of :data:`LAYOUTS`; return its frames in the order of their rows."""
    small, large = make_frames(5, 4), make_frames(4, 6, seed=1)
    if kind.startswith("lmdb"):
        frames = small + large
        if kind == "lmdb crystals":
            frames = make_frames(5, 4, periodic=True) + make_frames(3, 6, periodic=True, seed=1)
        if kind == "lmdb with missing labels":
            without(frames[1:3], "gap")
            without(frames[4:6], "pair", "energy")
        write_lmdb(folder, frames)
        return frames
    if kind == "folder per atom count":
        write_system(folder / "4", [small])
        write_system(folder / "6", [large])
        return small + large
    if kind == "linked systems":
        write_system(folder.parent / "elsewhere" / "a", [small])
        write_system(folder / "b", [large])
        (folder / "a").symlink_to(folder.parent / "elsewhere" / "a", target_is_directory=True)
        return small + large
    if kind == "label missing in a system":
        write_system(folder / "a", [without(small, "gap", "force")])
        write_system(folder / "b", [large])
        return small + large
    if kind == "two sets":
        write_system(folder, [small[:2], small[2:]])
        return small
    if kind == "label missing in a set":
        without(small[:2], "gap", "force", "fparam")
        without(small[2:], "pair")
        write_system(folder, [small[:2], small[2:]])
        return small
    if kind == "label missing in an entry":
        without(small[1:2], "gap")
        write_system(folder, [small])
        return small
    frames = make_frames(5, 4, periodic="crystals" in kind, equal="mixed" not in kind)
    write_system(
        folder,
        [frames],
        mixed="mixed" in kind,
        padding=2 * ("padding" in kind),
        type_map=kind != "no type map",
    )
    return frames
