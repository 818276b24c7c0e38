"""Paths of data and reference checkpoints in an input."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def absolute_in(base: Path) -> Callable[[str], str]:
    """Return what makes paths of an input in ``base`` absolute; what is not there stays."""

    def convert(path: str) -> str:
        file = path.rpartition(":")[0]  # of FILE:BRANCH
        there = (base / path).exists() or (file and (base / file).is_file())
        return str(base / path) if there else path

    return convert


def relative_to(base: Path) -> Callable[[str], str]:
    """Return what makes absolute paths relative to a folder."""
    return lambda path: os.path.relpath(path, base) if Path(path).is_absolute() else path


def moved(old: Path, new: Path) -> Callable[[str], str]:
    """Return what makes paths that are relative to one folder relative to another."""
    absolute = absolute_in(old)

    def convert(path: str) -> str:
        there = absolute(path)
        return path if there == path else os.path.relpath(there, new)

    return convert


def with_paths(part: Any, convert: Callable[[str], str]) -> Any:
    """Return JSON whose paths of data and of reference checkpoints are converted."""
    if isinstance(part, list):
        return [with_paths(one, convert) for one in part]
    if not isinstance(part, dict):
        return part
    found = {key: with_paths(value, convert) for key, value in part.items()}
    for key in ("systems", "reference"):
        if isinstance(found.get(key), str):
            found[key] = convert(found[key])
        elif isinstance(found.get(key), list):
            found[key] = [convert(one) for one in found[key]]
    return found
