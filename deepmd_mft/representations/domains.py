"""A target and candidate auxiliary sets: one map, one ranking."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from deepmd_mft.errors import UserError
from deepmd_mft.representations.advice import Candidate, advise, floor, rank
from deepmd_mft.representations.clusters import flatten
from deepmd_mft.representations.drift import wasserstein
from deepmd_mft.representations.embeddings import embed
from deepmd_mft.structures.elements import symbol

if TYPE_CHECKING:
    from deepmd_mft.representations.backbone import Backbone
    from deepmd_mft.structures.structure_set import StructureSet

__all__ = ["Domains", "analyse_domains"]


@dataclass
class Domains:
    """The map and the ranking.

    Parameters
    ----------
    ranked : list of Candidate
        From the most to the least suited.
    floor, structure_floor : float
        Distance between two random halves of the target, of atoms and of structures.
    words : list of str
        The ranking in sentences.
    sets : np.ndarray of str
        Set of each structure of the map.
    panels : dict of str to np.ndarray
        ``nodes`` and ``edges`` to t-SNE points, ``nstructures x 2``.
    """

    ranked: list[Candidate]
    floor: float
    structure_floor: float
    words: list[str]
    sets: np.ndarray
    panels: dict[str, np.ndarray] = field(default_factory=dict)


def analyse_domains(
    backbone: Backbone,
    target: StructureSet,
    others: list[StructureSet],
    *,
    natoms: int = 2000,
    seed: int = 0,
) -> Domains:
    """Rank auxiliary sets by their distance from a target, in the representation of a checkpoint.

    Parameters
    ----------
    backbone : Backbone
        The checkpoint to be fine-tuned.
    target : StructureSet
        What will be predicted.
    others : list of StructureSet
        Candidates for the auxiliary branch. Structures with elements that the checkpoint does
        not know are left out, and counted.
    natoms : int
        Atoms drawn of each set; one number for all, because distances between small samples are
        larger.
    seed : int
        Seed of every draw.

    Returns
    -------
    Domains

    Raises
    ------
    UserError
        If a set has no structure that the checkpoint knows, or too few.
    """
    known, notes = [], []
    for before in (target, *others):
        after, note = before.with_elements(backbone.type_map)
        known.append(after)
        notes += [note] if note else []
        if len(after) < 2:
            raise UserError(
                f"set {before.name}: {len(after)} of its {len(before)} structures have only "
                f"elements that {backbone.name} knows ({', '.join(backbone.type_map)}); nothing "
                "can be said about it with this checkpoint"
            )
    count = min(natoms, *(int(s.natoms.sum()) for s in known))
    # the floor compares halves; so do the candidates, to have distances of samples of one size
    half = max(1, count // 2)
    rng = np.random.default_rng(seed)
    atoms, means, edges = [], [], []
    for structures in known:
        chosen = np.sort(rng.permutation(int(structures.natoms.sum()))[: 2 * half])
        seen = embed(backbone, structures, atoms=chosen, progress=True)
        atoms.append(rng.permutation(seen.node))
        means.append(seen.pooled[-1])
        edges.append(seen.edge_pooled)
    structures_each = max(1, min(len(m) for m in means) // 2)
    candidates = []
    base = floor(atoms[0], seed=seed)
    structure_base = floor(rng.permutation(means[0])[: 2 * structures_each], seed=seed)
    own = set(np.concatenate(known[0].elements).tolist())
    for number, structures in enumerate(known[1:], start=1):
        theirs = set(np.concatenate(structures.elements).tolist())
        distance = wasserstein(atoms[0][:half], atoms[number][:half])
        candidates.append(
            Candidate(
                name=structures.name,
                distance=distance,
                ratio=distance / base if base > 0 else float("inf"),
                structure_distance=wasserstein(
                    rng.permutation(means[0])[:structures_each],
                    rng.permutation(means[number])[:structures_each],
                ),
                missing_elements=[symbol(z) for z in sorted(own - theirs)],
                usable=len(structures) / len(others[number - 1]),
            )
        )
    ranked = rank(candidates)
    names = np.concatenate([[s.name] * len(s) for s in known])
    panels = {"nodes": flatten(np.concatenate(means), seed=seed)}
    if edges[0].shape[1]:
        panels["edges"] = flatten(np.concatenate(edges), seed=seed)
    words = [*advise(target.name, ranked), *notes]
    return Domains(ranked, base, structure_base, words, names, panels)
