"""Elements, cells and labels of the systems that an input trains on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from deepmd.dpmodel.utils.lmdb_data import is_lmdb

from deepmd_mft.inputs.groups import label_of_groups, read_groups
from deepmd_mft.inputs.labels import needed_labels, read_label
from deepmd_mft.inputs.systems import check_cells, check_elements, list_systems, open_system

if TYPE_CHECKING:
    from deepmd_mft.inputs.branches import Branch
    from deepmd_mft.inputs.findings import Findings
    from deepmd_mft.structures.npy import System

SECTIONS = ("training_data", "validation_data")


def check_data(branch: Branch, findings: Findings) -> dict[str, np.ndarray]:
    """Check elements, cells and labels of a branch's training and validation systems.

    No coordinates are read.

    Returns
    -------
    dict of str to np.ndarray
        Training labels of the properties, nframes x columns, NaN where missing; of labels that
        belong to groups of frames, ngroups x columns.
    """
    if not branch.model.get("type_map"):
        findings.error(
            f"{branch.where}: type_map is empty; list the elements of the data, as deepmd-kit needs"
        )
        return {}
    found: dict[str, list[np.ndarray]] = {}
    for section in SECTIONS:
        part = branch.data.get(section)
        if part:
            values = _check_section(part, section, branch, findings)
            found = values if section == "training_data" else found
    return {name: np.concatenate(parts) for name, parts in found.items() if parts}


def _check_section(
    part: dict[str, Any], section: str, branch: Branch, findings: Findings
) -> dict[str, list[np.ndarray]]:
    systems = findings.attempt(list_systems, part, branch, section) or []
    values: dict[str, list[np.ndarray]] = {}
    if systems and is_lmdb(systems[0]):
        from deepmd_mft.inputs.lmdb import check_lmdb  # noqa: PLC0415  (for those that have one)

        found = findings.attempt(check_lmdb, systems[0], branch, findings) or {}
        values = {name: [one] for name, one in found.items()}
    else:
        opened = [one for name in systems if (one := findings.attempt(open_system, name))]
        findings.attempt(check_elements, opened, branch.model.get("type_map") or [], branch)
        for system in opened:
            _check_system(system, branch, findings, values)
    if branch.is_property:
        _tell_missing(values, section, branch, findings)
    return values


def _check_system(
    system: System, branch: Branch, findings: Findings, values: dict[str, list[np.ndarray]]
) -> None:
    """Check one system; add its property labels to ``values``, those of a group once."""
    findings.attempt(check_cells, system, branch)
    groups = findings.attempt(read_groups, system, branch, findings) if branch.is_property else None
    for label in findings.attempt(needed_labels, branch) or []:
        every = []
        for number in range(len(system.sets)):
            found = findings.attempt(read_label, system, number, label, branch)
            if found is not None:
                every.append(found)
        if groups is not None and sum(map(len, every)) == len(groups):
            one_each = findings.attempt(label_of_groups, every, groups, label, system)
            every = [] if one_each is None else [one_each]
        if every:
            values.setdefault(label.name, []).extend(every)


def _tell_missing(
    values: dict[str, list[np.ndarray]], section: str, branch: Branch, findings: Findings
) -> None:
    """Tell how many labels are masked; an error if that is all of them."""
    for name, parts in values.items():
        known = sum(int(np.isfinite(part).sum()) for part in parts)
        total = sum(part.size for part in parts)
        if total and not known:
            findings.error(
                f"{branch.where}: property '{name}' has no label at all in {section}; check "
                "property_name and the label files"
            )
        elif known < total and branch.masks:
            findings.warn(
                f"{branch.where}, {section}: {total - known} of {total} labels of property {name} "
                "are missing and masked"
            )
