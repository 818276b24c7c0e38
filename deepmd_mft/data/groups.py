"""Structures that have one label together: brought together, and their label checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from deepmd_mft.data.frames import FORCE_FIELD_UNITS, Frames, Skipped
from deepmd_mft.errors import UserError
from deepmd_mft.structures.groups import differing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Placed", "in_groups"]

#: What a source has, and its first row there.
Placed: TypeAlias = tuple[Frames | Skipped, int]


def in_groups(found: Iterable[Placed]) -> Iterator[list[Placed]]:
    """Yield the structures of each group together, in order of the groups' first structures.

    The whole source is held in memory: a group may be anywhere in it. A structure without a group
    is one of its own. A value that only some of a group have is that of all.

    Raises
    ------
    UserError
        If structures of one group have different values, or crystals are among molecules.
    """
    groups: dict[object, list[Placed]] = {}
    for item, first in found:
        name = item.group if isinstance(item, Frames) else ""
        groups.setdefault(name or (first,), []).append((item, first))
    for members in groups.values():
        frames = [item for item, _ in members if isinstance(item, Frames)]
        if len(members) > 1:
            _share_labels(frames)
            _check_alike(frames)
        yield members


def _check_alike(frames: list[Frames]) -> None:
    one = frames[0]
    for other in frames[1:]:
        if (one.cells is None) != (other.cells is None):
            raise UserError(
                f"group {one.group!r}: one of {one.ids[0]} and {other.ids[0]} is periodic, the "
                "other is a molecule; a group is of one kind (--no-cell makes all molecules)"
            )


def _share_labels(frames: list[Frames]) -> None:
    """Give all structures of a group its labels, which must be the same where they are there.

    Energies, forces and virials stay those of each structure.
    """
    group, ids = frames[0].group, [name for one in frames for name in one.ids]
    names = dict.fromkeys(name for one in frames for name in one.labels)
    for name in (name for name in names if name not in FORCE_FIELD_UNITS):
        values = np.concatenate([one.labels[name] for one in frames])
        there = np.flatnonzero(np.isfinite(values).all(axis=1))
        pair = differing(values[there], np.zeros(len(there), dtype=np.int64))
        if pair:
            one, other = there[pair[0]], there[pair[1]]
            raise UserError(
                f"group {group!r}: {name} of {ids[one]} and {ids[other]} differs "
                f"({_shown(values[one])} and {_shown(values[other])}), but a group has one value; "
                "correct it, or leave --group-key out if each structure has a value of its own"
            )
        if len(there):
            for each in frames:
                each.labels[name] = np.repeat(values[there[:1]], len(each), axis=0)


def _shown(value: np.ndarray) -> str:
    return ", ".join(f"{one:g}" for one in value)
