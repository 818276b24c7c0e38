"""Where sets lie: opening what is at a path, and finding the sets of a split."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from deepmd_mft.errors import UserError
from deepmd_mft.structures.npy import NpyStore, list_systems
from deepmd_mft.structures.rows import Rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from deepmd_mft.structures.store import Store

__all__ = ["find_set_folders", "find_test_set", "folder_checksum", "open_stores"]

#: How the folders of a split are called; others are taken for systems.
ROLE = re.compile(r"train|val|test|aux|(id|ood)(?![A-Za-z])", re.IGNORECASE)
#: In the name of a set by which nothing is chosen: id_test, test, ood_test2, but not latest.
TEST = re.compile(r"(?<![a-z])test")


def open_stores(paths: Sequence[Path]) -> list[Store]:
    """Open folders and files; systems of one converted set are read through its table.

    Raises
    ------
    UserError
        If there is nothing to read at a path.
    """
    homes: dict[Path, list[str]] = {}  # set with a table: its systems that are asked for
    for path in paths:
        home = _home(path)
        homes.setdefault(home, []).append(_relative(path, home))
    return [_open(home, within) for home, within in homes.items()]


def folder_checksum(path: Path) -> str:
    """SHA-256 over the data at a path, independent of where it lies.

    An LMDB's file depends on its history, so there the records are hashed; of deepmd/npy the
    names and contents of the ``.npy`` and ``.raw`` files; of another file its content.
    """
    return _open(path, ["."]).checksum()


def _open(path: Path, within: list[str]) -> Store:
    if path.is_dir():
        if _is_lmdb(path):
            from deepmd_mft.structures.lmdb import LmdbStore  # noqa: PLC0415  (imports deepmd)

            return LmdbStore(path)
        if path.suffix == ".lmdb":  # deepmd-kit goes by the name
            raise UserError(f"{path} is called .lmdb, but has no data.mdb; copy or write it again")
        return NpyStore(path, within)
    if _is_hdf5(path):
        return NpyStore(path)
    if path.is_file():
        from deepmd_mft.structures.memory import AseStore  # noqa: PLC0415  (imports ase)

        return AseStore(path)
    raise UserError(
        f"{path} does not exist; give a folder of deepmd systems, an LMDB or a structure file"
    )


def _home(path: Path) -> Path:
    """Return the folder of the table that lists the systems at a path; else the path."""
    if not path.is_dir() or _is_lmdb(path):
        return path
    if (path / "rows.csv").is_file():
        return path
    for above in path.parents[:2]:
        if (above / "rows.csv").is_file() and _lists(above / "rows.csv", _relative(path, above)):
            return above
    return path


def _lists(table: Path, place: str) -> bool:
    """Whether a table names the system at a place, or systems below it."""
    try:
        systems = set(Rows.read(table).systems)
    except UserError:
        return False  # somebody else's file of that name
    return any(name == place or name.startswith(f"{place}/") for name in systems)


def _relative(path: Path, home: Path) -> str:
    return Path(os.path.relpath(path, home)).as_posix()


def find_set_folders(
    folders: Iterable[Path], chosen: Sequence[str] | None = None
) -> dict[str, Path]:
    """Find the sets of split folders.

    A set is a folder with a table, an LMDB, a system, or systems (one folder for each number of
    atoms, say); a split is a folder of sets. Which of the two a folder of systems is, the names
    in it tell: those of a split begin with train, val, id, ood, test or aux.

    Parameters
    ----------
    folders : iterable of Path
        Sets, or folders of sets.
    chosen : sequence of str, optional
        Names of the sets wanted. Without it, all but those called ``aux*``.

    Returns
    -------
    dict of str to Path
        By name.

    Raises
    ------
    UserError
        If there is nothing, two are called the same, or a wanted set is missing.
    """
    seen: dict[str, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder")
        for path in _sets_of(folder, chosen or []):
            name = path.name or path.resolve().name
            if name in seen:
                raise UserError(
                    f"two sets are called {name}: {seen[name]} and {path}; rename one, or evaluate "
                    "them one after the other"
                )
            seen[name] = path
    wanted = list(chosen or [name for name in seen if not name.startswith("aux")])
    for name in wanted:
        if name not in seen:
            raise UserError(f"no set '{name}'; there are {', '.join(seen) or 'none'}")
    if not wanted:
        listed = ", ".join(map(str, folders))
        raise UserError(f"no deepmd-kit systems in {listed} (no type.raw, no data.mdb below it)")
    return {name: seen[name] for name in wanted}


def find_test_set(path: Path) -> str | None:
    """Return the test set that a place is, by its name, or holds; None if there is none."""
    place = path.resolve()
    inside = sorted(one for one in place.iterdir() if one.is_dir()) if place.is_dir() else []
    return next((one.name for one in (place, *inside) if TEST.search(one.name.lower())), None)


def _sets_of(folder: Path, chosen: Sequence[str]) -> list[Path]:
    """Return the folder itself if it is a set, else the sets in it."""
    if _is_set(folder):
        return [folder]
    inner = [path for path in sorted(folder.iterdir()) if path.is_dir() and _holds_data(path)]
    if any(_has_role(path) or path.name in chosen for path in inner):
        return inner
    if any((path / "rows.csv").is_file() or _is_lmdb(path) for path in inner):
        return inner
    for path in inner:
        if any(map(_has_role, path.iterdir())):
            names = ", ".join(one.name for one in inner[:5])
            raise UserError(f"{folder} holds several splits ({names}, ...); give one of them")
    return [folder] if inner else []


def _has_role(path: Path) -> bool:
    return ROLE.match(path.name) is not None and path.is_dir()


def _is_set(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("type.raw", "rows.csv", "data.mdb"))


def _is_lmdb(folder: Path) -> bool:
    return (folder / "data.mdb").is_file()


def _is_hdf5(path: Path) -> bool:
    """Whether deepmd-kit reads systems from the groups of a file: ``file.hdf5#/group``."""
    from h5py import is_hdf5  # noqa: PLC0415

    return bool(is_hdf5(str(path).partition("#")[0]))


def _holds_data(folder: Path) -> bool:
    return _is_set(folder) or bool(list_systems(folder))
