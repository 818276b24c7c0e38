"""Structures of a validation or test set that are, or whose like is, in the training data too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deepmd_mft.structures.duplicates import duplicate_groups

if TYPE_CHECKING:
    from deepmd_mft.inputs.findings import Findings
    from deepmd_mft.structures.structure_set import StructureSet


def find_leakage(
    sets: dict[tuple[str, str], StructureSet], tests: list[StructureSet], findings: Findings
) -> None:
    """Warn of held-out structures in any branch's training data.

    What counts as the same is what ``dp-mft split`` keeps on one side: equal structures,
    molecules and groups (:func:`deepmd_mft.structures.duplicates.duplicate_groups`).

    Parameters
    ----------
    sets : dict
        By branch and section.
    tests : list of StructureSet
    findings : Findings
        Filled: an error for a test set, a warning for validation data.
    """
    trained = [one for (_, section), one in sets.items() if section == "training_data"]
    held_out = [one for (_, section), one in sets.items() if section == "validation_data"]
    every = [*trained, *held_out, *tests]
    if not trained or not every[len(trained) :]:
        return
    groups = duplicate_groups(
        [group for one in every for group in one.groups],
        [smiles for one in every for smiles in one.smiles],
        [structure for one in every for structure in one.structures],
        tell=lambda remark: findings.warn(f"leakage: {remark}"),
    )
    ends = np.cumsum([len(one) for one in every])
    parts = dict(zip(range(len(every)), np.split(groups, ends[:-1]), strict=True))
    for number, other in list(enumerate(every))[len(trained) :]:
        for index, train in enumerate(trained):
            common = np.flatnonzero(np.isin(parts[number], parts[index]))
            if not len(common):
                continue
            text = (
                f"{len(common)} of {len(other)} structures of {other.name} are in {train.name} too "
                f"(same structure, molecule or group; first: {other.ids[common[0]]}); remove them "
                "from one of the two, else the errors flatter the model"
            )
            if other in tests:
                findings.errors.append(f"leakage: {text}")
            else:
                findings.warn(f"leakage: {text}")
