"""All errors and warnings of an input, in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepmd_mft.bridge.inputs import build_model
from deepmd_mft.checkpoints.branch import MAIN
from deepmd_mft.checkpoints.file import read_model_params
from deepmd_mft.errors import UserError
from deepmd_mft.inputs.branches import Branch, flat, main_ones, read_input
from deepmd_mft.inputs.checkpoint import check_trained_elements
from deepmd_mft.inputs.data import SECTIONS
from deepmd_mft.inputs.facts import branch_facts, check_memory
from deepmd_mft.inputs.findings import Findings
from deepmd_mft.inputs.gate import check_all
from deepmd_mft.inputs.leakage import find_leakage
from deepmd_mft.inputs.systems import list_systems
from deepmd_mft.inputs.values import (
    check_distances,
    check_elements_seen,
    check_values,
    elements_of,
)
from deepmd_mft.structures.structure_set import StructureSet

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Structures of each set that are looked at; all of QM9, a tenth of SPICE2.
MOST = 200_000


def check_input(
    path: Path, checkpoint: Path | None, tests: Sequence[StructureSet]
) -> tuple[Findings, dict[str, Any]]:
    """Check an input, its data and the checkpoint that it starts from.

    Parameters
    ----------
    path : Path
        The JSON of ``dp --pt train``; its relative paths start in the working directory, as there.
    checkpoint : Path, optional
        For ``--finetune``.
    tests : sequence of StructureSet
        Sets that must not be in the training data.

    Returns
    -------
    findings : Findings
        Errors and warnings.
    facts : dict
        By branch: frames, elements, steps, epochs, largest neighbour counts; the memory estimate.
    """
    findings = Findings(stop=False)
    config = findings.attempt(read_input, path)
    if config is None:
        return findings, {}
    given = {"finetune": checkpoint} if checkpoint else {}
    checked = check_all(config, given, findings)
    branches, schedule = checked.branches, checked.schedule
    for branch in branches:
        findings.attempt(_check_that_it_can_be_built, branch)
    if checkpoint is not None:
        findings.attempt(_check_descriptors, branches, checkpoint)
    elif any(branch.model.get("finetune_head") for branch in branches):
        findings.warn(
            "the input has finetune_head, but no checkpoint is given: check with --finetune FILE, "
            "and train with it too, else the training starts from random weights"
        )
    facts: dict[str, Any] = {}
    sets = _read_sets(branches, findings)
    main = _main(branches, findings)
    for branch in branches:
        check_elements_seen(branch, sets, list(tests) if branch in main else [], findings)
        check_distances(branch, sets, findings)
        check_values(branch, sets, findings)
        if checkpoint is not None and checkpoint.is_file():
            parts = [sets[key] for key in sets if key[0] == branch.name]
            elements = {name for part in parts for name in elements_of(part)}
            findings.attempt(check_trained_elements, branch, elements, checkpoint, findings)
        train = sets.get((branch.name, "training_data"))
        facts[branch.name or "model"] = (
            {}
            if train is None
            else branch_facts(branch, train, schedule, findings, main=branch in main)
        )
    find_leakage(sets, list(tests), findings)
    facts["memory_gib"] = check_memory(facts, branches, findings)
    return findings, facts


def _main(branches: list[Branch], findings: Findings) -> list[Branch]:
    """Return the branches that the training may be for; warn if it is not said which."""
    found = main_ones(branches)
    if len(found) > 1:
        findings.warn(
            f"{len(found)} branches learn a property ({', '.join(one.name for one in found)}), and "
            "none is said to be the one that the training is for: dp-mft select, evaluate and "
            f'report will ask for it. Write "info": {{"{MAIN}": true}} beside its fitting_net'
        )
    return found


def _read_sets(branches: list[Branch], findings: Findings) -> dict[tuple[str, str], StructureSet]:
    """Read the structures of every branch and section, as far as they can be read."""
    sets: dict[tuple[str, str], StructureSet] = {}
    for branch in branches:
        for section in SECTIONS:
            found = findings.attempt(_read_set, branch, section)
            if found is None:
                continue
            sets[branch.name, section] = found
            if len(found) < found.total:
                findings.warn(
                    f"{found.name}: {len(found):,} of {found.total:,} structures, drawn at "
                    "random, were looked at for elements, outliers and leakage"
                )
    return sets


def _read_set(branch: Branch, section: str) -> StructureSet | None:
    part = branch.data.get(section)
    if not part or not part.get("systems"):
        return None
    try:
        systems = list_systems(part, branch, section)
    except UserError:
        return None  # reported by the checks before
    name = f"{branch.name} {section}".strip()
    try:
        found = StructureSet(name, [Path(system) for system in systems], most=MOST)
        found = found.with_type_map(branch.model.get("type_map", []))
        found.structures  # noqa: B018  (read now: what cannot be read is told here)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(
            f"{branch.where}, {section}: the structures cannot be read ({error})"
        ) from None
    return found


def _check_that_it_can_be_built(branch: Branch) -> None:
    """Build the branch's model, which ``dp train`` would do next."""
    try:
        build_model(branch.model)
    except UserError as error:
        raise UserError(f"{branch.where}: {error}") from None
    except Exception as error:  # noqa: BLE001  (whatever ends the training there)
        raise UserError(
            f"{branch.where}: deepmd-kit cannot build a model of type "
            f'"{branch.model.get("type", "standard")}" with fitting_net "{branch.head}" and '
            f'descriptor "{branch.model.get("descriptor", {}).get("type")}" '
            f"({type(error).__name__}: {error})"
        ) from None


def _check_descriptors(branches: list[Branch], checkpoint: Path) -> None:
    """Compare each branch's descriptor with the checkpoint's, key by key."""
    try:
        params = read_model_params(checkpoint)
    except UserError:
        return  # reported by the checks before
    first = next(iter(params.get("model_dict", {"": params}).values()))
    theirs = flat(first.get("descriptor", {}))
    for branch in branches:
        mine = flat(branch.model.get("descriptor", {}))
        differing = [
            f"{key} is {mine[key]!r}, in the checkpoint {theirs[key]!r}"
            for key in mine
            if key in theirs and mine[key] != theirs[key]
            if key.split("/")[-1] not in ("seed", "trainable")
        ]
        if differing:
            raise UserError(
                f"{branch.where}: the descriptor differs from {checkpoint}: "
                f"{'; '.join(differing)}. Copy it from the checkpoint (`dp-mft input` does)"
            )
