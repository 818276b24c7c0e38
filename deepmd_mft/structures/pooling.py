"""A set seen by its labels: one row for each group of frames that has one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from deepmd_mft.errors import UserError
from deepmd_mft.names import GROUP
from deepmd_mft.structures.duplicates import group_numbers, joined_groups
from deepmd_mft.structures.groups import check_numbers, differing, mean_over, number_groups
from deepmd_mft.structures.structure_set import StructureSet

__all__ = ["Pooling"]


class Pooling:
    """Brings what is known of each frame of a set to its groups.

    A set whose labels belong to frames, as most do, stays as it is.

    Parameters
    ----------
    structures : StructureSet

    Attributes
    ----------
    frames : StructureSet
        The set.
    structures : StructureSet
        One row for each group: the first of its frames, under the name of the group. Its labels
        are those of the groups.
    groups : np.ndarray of int
        Row there of each frame.

    Raises
    ------
    UserError
        If the numbers of the groups are none.
    """

    def __init__(self, structures: StructureSet) -> None:
        self.frames = structures
        found = _numbers(structures)
        self.of_groups = found is not None
        self.groups = np.arange(len(structures)) if found is None else found
        self.structures = structures if found is None else _OneEach(structures, found)

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Return the mean over the frames of each group; first axis ``nframes`` to ``ngroups``."""
        return mean_over(values, self.groups) if self.of_groups else values

    def joined(self, kinds: np.ndarray) -> np.ndarray:
        """Return the kind of each group, from the kinds of its frames, which it makes one.

        Parameters
        ----------
        kinds : np.ndarray of int
            What each frame belongs together with, shape ``nframes``.

        Returns
        -------
        np.ndarray of int
            Shape ``ngroups``, numbered in order of appearance.
        """
        if not self.of_groups:
            return kinds
        _, first = np.unique(self.groups, return_index=True)
        return group_numbers(joined_groups(kinds, self.groups)[first].tolist())

    def rows(self, groups: np.ndarray) -> np.ndarray:
        """Return the frames of some groups, ascending."""
        return np.flatnonzero(np.isin(self.groups, groups)) if self.of_groups else groups


class _OneEach(StructureSet):
    """The first frame of each group, with the label of the group."""

    def __init__(self, frames: StructureSet, groups: np.ndarray) -> None:
        _, first = np.unique(groups, return_index=True)
        order = np.sort(first)  # groups are numbered in order of appearance
        self.__dict__.update(frames.take(order).__dict__)
        self._frames, self._groups = frames, groups
        rows = frames.rows.take(order)
        names = [group or name for group, name in zip(rows.groups, rows.ids, strict=True)]
        self.rows = replace(rows, ids=names if len(set(names)) == len(names) else rows.ids)

    def labels(self, name: str, columns: int | None = None) -> np.ndarray | None:
        """Return the label of every group, ngroups x columns.

        Raises
        ------
        UserError
            If frames of one group have different labels.
        """
        values = self._frames.labels(name, columns)
        if values is None:
            return None
        pair = differing(values, self._groups)
        if pair:
            one, other = pair
            raise UserError(
                f"set {self.name}: {name} of {self._frames.ids[one]} and {self._frames.ids[other]} "
                f"differs ({values[one]} and {values[other]}), but they are of one group, which "
                f"has one label; mend it, or remove {GROUP}.npy if each frame has a label of its "
                "own"
            )
        _, first = np.unique(self._groups, return_index=True)
        return np.asarray(values[np.sort(first)])


def _numbers(structures: StructureSet) -> np.ndarray | None:
    """Return the group of each frame; None if no labels are of groups."""
    numbers: np.ndarray | None = None
    of = np.full(len(structures), -1)  # files, in each of which the numbers count anew
    start = 0
    for number, (store, rows) in enumerate(structures.parts):
        for positions, block in store.blocks(GROUP, rows) if store.may_have(GROUP) else ():
            if numbers is None:
                numbers = np.full(len(structures), np.nan)
            numbers[start + positions] = check_numbers(block, f"{GROUP}.npy of {store.path}")
            of[start + positions] = number
        start += len(rows)
    if numbers is None:
        return None
    systems = np.array(structures.rows.systems, dtype=object)
    return number_groups(numbers, of, systems)
