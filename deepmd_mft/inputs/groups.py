"""The groups of frames that have one label, in the systems of an input."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deepmd_mft.errors import UserError
from deepmd_mft.names import GROUP
from deepmd_mft.structures.groups import check_numbers, differing, mean_over, number_groups

if TYPE_CHECKING:
    from deepmd_mft.inputs.branches import Branch
    from deepmd_mft.inputs.findings import Findings
    from deepmd_mft.inputs.labels import Label
    from deepmd_mft.structures.npy import System


def read_groups(system: System, branch: Branch, findings: Findings) -> np.ndarray | None:
    """Return the group of each frame of a system, from 0; None if its labels are of frames.

    Raises
    ------
    UserError
        If a number is none of a group.
    """
    numbers, found = [], False
    for number in range(len(system.sets)):
        path = system.path(number, GROUP)
        if path.is_file():
            found = True
            numbers.append(check_numbers(system.frames(number, GROUP), path))
        else:
            numbers.append(np.full(system.nframes(number), np.nan))
    if not found:
        return None
    if not branch.is_mft_head:
        findings.warn(
            f"{branch.where}: the labels of {system.folder} belong to groups of frames "
            f"({GROUP}.npy), but deepmd-kit's own loss compares each frame with them; take a "
            "fitting_net and loss of type mft_property"
        )
    return number_groups(np.concatenate(numbers))


def label_of_groups(
    every: list[np.ndarray], groups: np.ndarray, label: Label, system: System
) -> np.ndarray:
    """Return the labels of the groups of a system, ngroups x columns.

    Raises
    ------
    UserError
        If frames of one group have different labels.
    """
    values = np.concatenate(every)
    pair = differing(values, groups)
    if pair:
        one, other = pair
        raise UserError(
            f"{system.folder}: frames {one} and {other} (counted from 0, through its sets) are of "
            f"one group by {GROUP}.npy, but their {label.name} differs ({values[one]} and "
            f"{values[other]}). A group has one label: mend it, or remove {GROUP}.npy if each "
            "frame has a label of its own"
        )
    return mean_over(values, groups)
