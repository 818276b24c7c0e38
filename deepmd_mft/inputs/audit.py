"""All errors and warnings of an input, in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from deepmd.common import j_loader

from deepmd_mft.bridge.neighbours import count_neighbours
from deepmd_mft.checkpoints.file import read_model_params
from deepmd_mft.errors import UserError
from deepmd_mft.inputs.branches import Branch, Findings, flat, read_branches
from deepmd_mft.inputs.data import list_systems
from deepmd_mft.inputs.gate import check_all
from deepmd_mft.inputs.leakage import find_leakage
from deepmd_mft.structures.elements import ELEMENTS
from deepmd_mft.structures.structure_set import StructureSet

SECTIONS = ("training_data", "validation_data")
#: Structures of each set that are looked at; all of QM9, a tenth of SPICE2.
MOST = 200_000
#: Structures of each set whose neighbours are counted.
SAMPLE = 200
#: Properties in Hartree whose values in eV are far larger (MFT, Table 6).
IN_HARTREE = ("homo", "lumo", "gap")


def check_input(
    path: Path, checkpoint: Path | None, tests: list[StructureSet]
) -> tuple[Findings, dict[str, Any]]:
    """Check an input, its data and the checkpoint that it starts from.

    Parameters
    ----------
    path : Path
        The JSON of ``dp --pt train``; its relative paths start in the working directory, as there.
    checkpoint : Path, optional
        For ``--finetune``.
    tests : list of StructureSet
        Sets that must not be in the training data.

    Returns
    -------
    findings : Findings
        Errors and warnings.
    facts : dict
        By branch: frames, elements, steps, epochs, largest neighbour counts; the memory estimate.
    """
    findings = Findings(stop=False)
    facts: dict[str, Any] = {}
    config = findings.attempt(_read, path)
    branches = findings.attempt(read_branches, config) if config else None
    if config is None or branches is None:
        return findings, facts
    check_all(config, branches, {"finetune": checkpoint} if checkpoint else {}, findings)
    if checkpoint is not None:
        findings.attempt(_check_descriptors, branches, checkpoint)
    elif any(branch.model.get("finetune_head") for branch in branches):
        findings.warn(
            "the input has finetune_head, but no checkpoint is given: check with --finetune FILE, "
            "and train with it too, else the training starts from random weights"
        )
    sets: dict[tuple[str, str], StructureSet] = {}
    for branch in branches:
        for section in SECTIONS:
            found = findings.attempt(_read_set, branch, section)
            if found is not None:
                sets[branch.name, section] = found
                if len(found) < found.total:
                    findings.warn(
                        f"{found.name}: {len(found):,} of {found.total:,} structures, drawn at "
                        "random, were looked at for elements, outliers and leakage"
                    )
        _check_elements_seen(branch, sets, tests, findings)
        _check_values(branch, sets, findings)
        facts[branch.name or "model"] = _facts(branch, config, sets, findings)
    find_leakage(sets, tests, findings)
    facts["memory_gib"] = _check_memory(facts, branches, findings)
    return findings, facts


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path} does not exist")
    try:
        config = j_loader(str(path))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is not JSON ({error})") from None
    missing = [key for key in ("model", "training") if key not in config]
    if missing:
        raise UserError(f"{path} has no {' and no '.join(missing)} section")
    return dict(config)


def _read_set(branch: Branch, section: str) -> StructureSet | None:
    part = branch.data.get(section)
    if not part or not part.get("systems"):
        return None
    try:
        systems = list_systems(part, branch, section) or [str(part["systems"])]
    except UserError:
        return None  # reported by the checks before
    name = f"{branch.name} {section}".strip()
    try:
        return StructureSet(name, [Path(system) for system in systems], MOST)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(
            f"{branch.where}, {section}: the structures cannot be read ({error})"
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


# --- the data -----------------------------------------------------------------------------------


def _elements(structures: StructureSet) -> set[str]:
    return {ELEMENTS[z - 1] for numbers in structures.numbers for z in np.unique(numbers)}


def _check_elements_seen(
    branch: Branch,
    sets: dict[tuple[str, str], StructureSet],
    tests: list[StructureSet],
    findings: Findings,
) -> None:
    train = sets.get((branch.name, "training_data"))
    if train is None:
        return
    seen = _elements(train)
    others = [sets.get((branch.name, "validation_data"))]
    for other in [*others, *(tests if branch.is_property else [])]:
        unseen = sorted(_elements(other) - seen) if other is not None else []
        if other is not None and unseen:
            count = sum(
                bool({ELEMENTS[z - 1] for z in np.unique(numbers)} & set(unseen))
                for numbers in other.numbers
            )
            findings.warn(
                f"{branch.where}: {other.name} has {', '.join(unseen)} ({count} of {len(other)} "
                "structures), which its training data never show. With bias: element they get the "
                "value of an average element; bias: mean or none does not depend on it"
            )


def _check_values(
    branch: Branch, sets: dict[tuple[str, str], StructureSet], findings: Findings
) -> None:
    labels = branch.labels if branch.is_property else {}
    spread: dict[tuple[str, str], float] = {}
    for section in SECTIONS:
        structures = sets.get((branch.name, section))
        if structures is None:
            continue
        if not branch.is_property:
            _check_forces(branch, structures, findings)
            continue
        for name, dim in labels.items():
            try:
                values = structures.labels(name, dim)
            except UserError:
                continue  # reported by the checks before
            if values is None:
                continue
            known = values[np.isfinite(values).all(axis=1)]
            varied = len(known) and np.ptp(known)  # the std of equal numbers is not quite zero
            spread[name, section] = float(known.std()) if varied else np.nan
            if branch.fitting_net["type"] != "mft_classification":
                _check_label(branch, structures, name, values, findings)
    for name in labels:
        a, b = (spread.get((name, section), np.nan) for section in SECTIONS)
        if a > 0 and b > 0 and not 1 / 8 < b / a < 8:
            findings.warn(
                f"{branch.where}: {name} varies by {a:.3g} in training and {b:.3g} in validation "
                "data; are they in the same unit?"
            )


def _check_label(
    branch: Branch,
    structures: StructureSet,
    name: str,
    values: np.ndarray,
    findings: Findings,
) -> None:
    known = np.flatnonzero(np.isfinite(values).all(axis=1))
    column = values[known, 0]
    if len(column) > 1 and not np.ptp(column):
        findings.warn(
            f"{branch.where}: {name} is {column[0]:g} in all {len(column)} structures of "
            f"{structures.name}; there is nothing to learn"
        )
        return
    median = np.median(column) if len(column) else 0.0
    width = np.median(np.abs(column - median)) * 1.4826 if len(column) else 0.0
    far = np.flatnonzero(np.abs(column - median) > 12 * width) if width else np.array([], int)
    if len(far):
        worst = far[np.abs(column[far] - median).argmax()]
        findings.warn(
            f"{branch.where}: {name} of {len(far)} structures of {structures.name} lies more than "
            f"12 robust standard deviations from the median {median:.4g}; the farthest is "
            f"{column[worst]:.4g} ({structures.ids[known[worst]]}). Mend or remove them if they "
            "are errors: they rule a squared loss"
        )
    unit = structures.unit.get(name, "")
    if name.lower() in IN_HARTREE and np.median(np.abs(column)) > 1.5 and unit in ("", "Hartree"):
        findings.warn(
            f"{branch.where}: the median |{name}| in {structures.name} is "
            f"{np.median(np.abs(column)):.3g}; QM9's is below 0.5 Hartree. These look like eV: "
            "divide by 27.2114 to compare with published errors"
        )


def _check_forces(branch: Branch, structures: StructureSet, findings: Findings) -> None:
    rms = structures.rms_force()
    if rms is None:
        if branch.loss.get("type", "ener") == "ener" and branch.loss.get("start_pref_f"):
            findings.warn(
                f"{branch.where}: {structures.name} has systems without force.npy; deepmd-kit's "
                'loss "ener" skips them without a word (mft_force_field does not)'
            )
        return
    if rms == 0:
        findings.warn(f"{branch.where}: all forces of {structures.name} are zero")
    elif not 0.02 < rms < 50:
        findings.warn(
            f"{branch.where}: the rms force of {structures.name} is {rms:.3g}; in eV/Angstrom it "
            "is usually between 0.02 and 50. Check the unit (1 Hartree/Bohr = 51.42 eV/Angstrom)"
        )


# --- steps, neighbours, memory ------------------------------------------------------------------


def _facts(
    branch: Branch,
    config: dict[str, Any],
    sets: dict[tuple[str, str], StructureSet],
    findings: Findings,
) -> dict[str, Any]:
    train = sets.get((branch.name, "training_data"))
    if train is None:
        return {}
    training = config["training"]
    share = _share(branch, training)
    frames = _frames_per_batch(branch.data["training_data"].get("batch_size", "auto"), train)
    facts: dict[str, Any] = {
        "frames": train.total,
        "elements": sorted(_elements(train)),
        "frames_per_batch": frames,
        "atoms_per_frame": round(float(np.mean(train.natoms)), 2),
    }
    if training.get("numb_steps"):
        facts["steps"] = round(share * training["numb_steps"])
        facts["epochs"] = round(facts["steps"] * frames / train.total, 2)
        if facts["epochs"] < 1 and branch.is_property:
            findings.warn(
                f"{branch.where} sees less than its {train.total} structures once: "
                f"{facts['steps']} steps of {frames}; raise numb_steps, model_prob or batch_size"
            )
    if facts.get("steps") == 0:
        findings.warn(f"{branch.where} gets no step: its model_prob is 0")
    facts |= _neighbours(branch, train, findings)
    return facts


def _share(branch: Branch, training: dict[str, Any]) -> float:
    prob = training.get("model_prob")
    names = list(training.get("data_dict", {branch.name: None}))
    if not prob:
        return 1.0 / len(names)
    return float(prob.get(branch.name, 0.0)) / float(sum(prob.values()) or 1.0)


def _frames_per_batch(batch_size: Any, structures: StructureSet) -> int:
    """Return the mean number of structures in a batch."""
    if isinstance(batch_size, list):
        return round(float(np.mean(batch_size)))
    if isinstance(batch_size, int):
        return batch_size
    kind, _, number = str(batch_size).partition(":")
    atoms = int(number) if number else 32
    per_frame = max(1.0, float(np.mean(structures.natoms)))
    return max(1, int(atoms // per_frame)) if kind == "max" else max(1, round(atoms / per_frame))


def _neighbours(branch: Branch, train: StructureSet, findings: Findings) -> dict[str, Any]:
    descriptor = branch.model.get("descriptor", {})
    block = descriptor.get("repflow", descriptor)
    found: dict[str, Any] = {}
    rows = np.unique(np.linspace(0, len(train) - 1, SAMPLE).astype(int))
    for rcut_key, sel_key in (("e_rcut", "e_sel"), ("a_rcut", "a_sel"), ("rcut", "sel")):
        rcut, sel = block.get(rcut_key), block.get(sel_key)
        if rcut is None or not isinstance(sel, int):
            continue
        counts = np.concatenate(
            [count_neighbours(train.coords[r], train.cells[r], float(rcut)) for r in rows]
        )
        found |= {f"largest_{sel_key}": int(counts.max()), f"mean_{sel_key}": float(counts.mean())}
        if counts.max() > sel:
            findings.warn(
                f"{branch.where}: an atom has {counts.max()} neighbours within {rcut_key} {rcut} "
                f"Angstrom, but {sel_key} is {sel} (seen in {len(rows)} of {train.total} training "
                f"structures): the farthest are dropped. Raise {sel_key}; from a checkpoint it is "
                "fixed unless rewritten"
            )
    return found


def _check_memory(
    facts: dict[str, Any], branches: list[Branch], findings: Findings
) -> float | None:
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
        if not flow or not {"mean_e_sel", "mean_a_sel"} <= own.keys():
            continue
        atoms = own["frames_per_batch"] * own["atoms_per_frame"]
        if flow.get("use_dynamic_sel"):
            edges, angles = atoms * own["mean_e_sel"], atoms * own["mean_a_sel"] ** 2
        else:  # filled up to sel
            edges, angles = atoms * flow["e_sel"], atoms * flow["a_sel"] ** 2
        n, e, a = (flow.get(key, default) for key, default in _DIMS)
        per_channel, per_angle_channel = _NUMBERS_KEPT[branch.is_property]
        numbers = per_channel * (atoms * n + edges * (n + e)) + per_angle_channel * angles * (e + a)
        largest = max(largest, 4 * flow.get("nlayers", 6) * numbers / 2**30)
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


_DIMS = (("n_dim", 128), ("e_dim", 64), ("a_dim", 32))
#: Numbers kept for a channel of a node or edge, and of an angle: without and with trained forces.
_NUMBERS_KEPT = {True: (11, 6), False: (42, 14)}
