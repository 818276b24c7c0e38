"""What a training will see and need: structures, steps, neighbours, memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from deepmd_mft.backbones.families import family_of_type
from deepmd_mft.backbones.fast_dpa3 import SWITCH
from deepmd_mft.backbones.switch import stops_at_many_neighbours
from deepmd_mft.bridge.neighbours import count_neighbours
from deepmd_mft.inputs.values import elements_of

if TYPE_CHECKING:
    from deepmd_mft.inputs.branches import Branch
    from deepmd_mft.inputs.findings import Findings
    from deepmd_mft.inputs.schedule import Schedule
    from deepmd_mft.structures.structure_set import StructureSet

#: Structures of each set whose neighbours are counted.
SAMPLE = 200
#: Numbers kept for a channel of a node or edge, and of an angle: without and with trained forces.
NUMBERS_KEPT = {True: (11, 6), False: (42, 14)}


def branch_facts(
    branch: Branch,
    train: StructureSet,
    schedule: Schedule | None,
    findings: Findings,
    *,
    main: bool,
) -> dict[str, Any]:
    """Return numbers of a branch's training; warn if it sees too little.

    Parameters
    ----------
    branch : Branch
    train : StructureSet
        Its training structures.
    schedule : Schedule or None
        Steps and batches, if deepmd-kit could work them out.
    findings : Findings
        Filled.
    main : bool
        Whether the training is for this branch: an auxiliary one need not see all of its data.
    """
    facts: dict[str, Any] = {
        "frames": train.total,
        "elements": sorted(elements_of(train)),
        "atoms_per_frame": round(float(np.mean(train.natoms)), 2),
    }
    if schedule is not None:
        batches = schedule.batches[branch.name]
        facts["frames_per_batch"] = round(batches.size, 2)
        facts["share"] = round(schedule.shares[branch.name], 4)
        facts["steps"] = round(schedule.shares[branch.name] * schedule.steps)
        facts["epochs"] = round(facts["steps"] * batches.frames / train.total, 2)
        if not schedule.steps:
            findings.warn("training/numb_steps is 0: nothing is trained")
        elif facts["steps"] == 0:
            findings.warn(f"{branch.where} gets no step: its model_prob is 0")
        elif facts["epochs"] < 1 and main:
            findings.warn(
                f"{branch.where} sees less than its {train.total} structures once: "
                f"{facts['steps']} steps of {batches.frames:.3g}; raise numb_steps, model_prob or "
                "batch_size"
            )
    return facts | _neighbours(branch, train, findings)


def _neighbours(branch: Branch, train: StructureSet, findings: Findings) -> dict[str, Any]:
    descriptor = branch.model.get("descriptor", {})
    family = family_of_type(descriptor.get("type", ""))
    found: dict[str, Any] = {}
    rows = np.unique(np.linspace(0, len(train) - 1, SAMPLE).astype(int))
    for one in family.neighbour_lists(descriptor):
        rcut, sel, sel_key = one.rcut, one.sel, one.sel_key
        if not isinstance(sel, int):
            continue
        counts = np.concatenate(
            [
                count_neighbours(structure.positions, structure.cell, rcut)
                for structure in (train.structures[row] for row in rows)
            ]
        )
        found |= {f"largest_{sel_key}": int(counts.max()), f"mean_{sel_key}": float(counts.mean())}
        if counts.max() > sel:
            text = (
                f"{branch.where}: an atom has {counts.max()} neighbours within {one.rcut_key} "
                f"{rcut} Angstrom, but {sel_key} is {sel} (seen in {len(rows)} of {train.total} "
                "training structures): "
            )
            if stops_at_many_neighbours(descriptor):
                findings.error(
                    f"{text}the training would stop there. `dp-mft tighten INPUT CHECKPOINT --data "
                    "DIR...` writes both with lists that hold all of them, the same network "
                    f"otherwise; {SWITCH}=0 lets deepmd-kit leave the farthest out"
                )
            else:
                findings.warn(f"{text}the farthest are dropped. Raise {sel_key}")
    return found


def check_memory(facts: dict[str, Any], branches: list[Branch], findings: Findings) -> float | None:
    """Estimate the memory of a step, in GiB; warn if the machine has less.

    Counted are the intermediate results that DPA-3 keeps for the gradient, in proportion to the
    channels of nodes, edges and angles in all layers. The factors come from the resident memory of
    trainings, of which the estimate was 1.2 to 1.7 times (benchmarks/memory.py); the libraries'
    own GiB is not in it.
    """
    largest = 0.0
    for branch in branches:
        own = facts.get(branch.name or "model", {})
        flow = branch.model.get("descriptor", {}).get("repflow")
        if not flow or not {"mean_e_sel", "mean_a_sel", "frames_per_batch"} <= own.keys():
            continue
        atoms = own["frames_per_batch"] * own["atoms_per_frame"]
        if flow["use_dynamic_sel"]:
            edges, angles = atoms * own["mean_e_sel"], atoms * own["mean_a_sel"] ** 2
        else:  # filled up to sel
            edges, angles = atoms * flow["e_sel"], atoms * flow["a_sel"] ** 2
        n, e, a = (flow[key] for key in ("n_dim", "e_dim", "a_dim"))
        per_channel, per_angle_channel = NUMBERS_KEPT[branch.is_property]
        numbers = per_channel * (atoms * n + edges * (n + e)) + per_angle_channel * angles * (e + a)
        largest = max(largest, 4 * flow["nlayers"] * numbers / 2**30)
    if not largest:
        return None
    room = _free_memory()
    if largest > room:
        findings.warn(
            f"a step needs roughly {largest:.1f} GiB, {room:.1f} GiB are free; lower batch_size "
            "of the largest branch if the training runs out of memory"
        )
    return round(largest, 2)


def _free_memory() -> float:
    """Return the memory that a training on this machine could take, in GiB."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0] / 2**30
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) / 2**20
