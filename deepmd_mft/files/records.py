"""Which verb wrote a folder, and what it put there.

The record that a verb leaves in its output (``dataset.json``, ``split.json``, ...) lists every
file of the output, so that ``--overwrite`` can tell a user's file from its own.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["RECORDS", "check_apart", "check_replaceable", "write_record"]

#: The record that each verb leaves in the folder it writes.
RECORDS = {
    "convert": "dataset.json",
    "split": "split.json",
    "replay": "replay.json",
    "interpolate": "interpolation.json",
    "evaluate": "evaluation.json",
    "report": "report.json",
    "analyze": "summary.json",
}

#: LMDB makes it beside ``data.mdb`` for whoever reads.
_LOCK_OF_LMDB = "lock.mdb"


@dataclass(frozen=True)
class _FirstVersion:
    """How the first version's output is known: its record did not list the files."""

    key: str
    value: str
    files: str

    def wrote(self, record: dict[str, Any]) -> bool:
        # A part of a split kept the record of its set, and names that set.
        return record.get(self.key) == self.value and "part_of" not in record


_SET = (
    r"(?:rows\.csv|dataset\.json|data\.mdb"
    r"|[^/]+/(?:type\.raw|type_map\.raw|nopbc|set\.000/[^/]+\.npy))"
)
_FIRST_VERSION = {
    "convert": _FirstVersion("format", "deepmd_mft data set, version 1", _SET),
    "split": _FirstVersion(
        "format",
        "deepmd_mft split, version 1",
        rf"split\.json|(?:[^/]+/)?(?:train|val|id_test|ood_test)/{_SET}",
    ),
    "evaluate": _FirstVersion(
        "made_by",
        "dp-mft evaluate",
        r"(?:metrics|groups|seeds|predictions)\.csv|predictions\.parquet|evaluation\.json",
    ),
}


def write_record(
    folder: Path, verb: str, record: dict[str, Any], *, indent: int | None = 1, default: Any = None
) -> None:
    """Write the record of a verb and list in it every file of the folder.

    Parameters
    ----------
    folder : Path
        What the verb wrote; every other file is there already.
    verb : str
        One of :data:`RECORDS`.
    record : dict
        What else the record says.
    indent : int, optional
        Of the JSON.
    default : callable, optional
        What ``json`` does with other types.
    """
    name = RECORDS[verb]
    files = sorted({*_files(folder), name} - {_LOCK_OF_LMDB})
    record = {**record, "written": {"by": f"dp-mft {verb}", "files": files}}
    text = json.dumps(record, indent=indent, default=default) + "\n"
    (folder / name).write_text(text, encoding="utf-8")


def check_replaceable(folder: Path, verb: str, inputs: Iterable[Path]) -> None:
    """Raise unless ``verb`` wrote ``folder``, nothing else lies in it, and no input does.

    Parameters
    ----------
    folder : Path
        An existing folder.
    verb : str
        One of :data:`RECORDS`.
    inputs : iterable of Path
        What the verb reads.

    Raises
    ------
    UserError
        Naming what is in the way.
    """
    check_apart(folder, inputs)
    found = sorted(_files(folder))
    if not found:
        return
    name = RECORDS[verb]
    record = _read(folder / name)
    if record is None:
        raise UserError(
            f"{folder} was not written by dp-mft {verb} (no {name} of it there; {_listed(found)} "
            "in it), and --overwrite replaces nothing else; choose another name"
        )
    written = record.get("written")
    if isinstance(written, dict):
        own = set(written.get("files", [])) if written.get("by") == f"dp-mft {verb}" else set()
        foreign = [file for file in found if file not in own]
    else:
        first = _FIRST_VERSION.get(verb)
        known = first is not None and first.wrote(record)
        pattern = re.compile(first.files if first is not None and known else "(?!)")
        foreign = [file for file in found if not pattern.fullmatch(file)]
    foreign = [file for file in foreign if file.rpartition("/")[2] != _LOCK_OF_LMDB]
    if foreign:
        raise UserError(
            f"{folder} holds what dp-mft {verb} did not write there: {_listed(foreign)}; "
            "--overwrite would delete that: move it away, or choose another name"
        )


def check_apart(out: Path, inputs: Iterable[Path]) -> None:
    """Raise if an existing output is an input, contains one or lies inside one.

    Links are followed: those in the paths, and those that lie inside an input.
    """
    place = out.resolve()
    for given in inputs:
        for one in (given, *_links(given)):
            real = one.resolve()
            if real == place:
                raise UserError(f"{out} is read here ({given}) and cannot be replaced")
            if place in real.parents:
                raise UserError(f"{out} contains {given}, which is read, and cannot be replaced")
            if real in place.parents:
                raise UserError(
                    f"{out} lies inside {given}, which is read, and cannot be replaced; choose "
                    "another name"
                )


def _read(path: Path) -> dict[str, Any] | None:
    if path.is_symlink() or not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _walk(folder: Path) -> Iterator[tuple[Path, bool]]:
    """Yield everything below a folder but its subfolders, and whether it is a link."""

    def fail(error: OSError) -> None:
        raise UserError(f"{error.filename} cannot be looked into ({error.strerror})") from error

    for root, folders, files in os.walk(folder, onerror=fail):
        for name in files:
            path = Path(root) / name
            yield path, path.is_symlink()
        for name in folders:
            path = Path(root) / name
            if path.is_symlink():
                yield path, True


def _files(folder: Path) -> Iterator[str]:
    """Yield every file and link below a folder, relative to it."""
    for path, _ in _walk(folder):
        yield path.relative_to(folder).as_posix()


def _links(folder: Path) -> list[Path]:
    return [path for path, is_link in _walk(folder) if is_link] if folder.is_dir() else []


def _listed(files: list[str]) -> str:
    more = f" and {len(files) - 3} more" if len(files) > 3 else ""
    return ", ".join(files[:3]) + more
