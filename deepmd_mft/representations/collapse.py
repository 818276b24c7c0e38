"""Pretrained against fine-tuned checkpoints: clusters, drift, layers, elements."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from deepmd_mft.errors import UserError
from deepmd_mft.representations.classes import Windows, atom_classes, find_edges, sample_classes
from deepmd_mft.representations.clusters import cluster_scores, flatten
from deepmd_mft.representations.drift import drift, linear_cka, weight_drift
from deepmd_mft.representations.elements import element_similarity
from deepmd_mft.representations.embeddings import embed
from deepmd_mft.representations.transrate import SHUFFLED, bin_target, layer_profile

if TYPE_CHECKING:
    from collections.abc import Callable

    from deepmd_mft.representations.backbone import Backbone
    from deepmd_mft.representations.classes import Edges
    from deepmd_mft.representations.embeddings import Embedding
    from deepmd_mft.structures.structure_set import StructureSet

__all__ = ["Collapse", "Options", "analyse_collapse"]


@dataclass(frozen=True)
class Options:
    """What is looked at, and how closely.

    Parameters
    ----------
    clusters_on : str
        Set whose atoms and edges are clustered; the paper takes the OOD set.
    pairs : list of str
        Pairs of elements whose edges are looked at; none for no edges.
    windows : Windows
        Distances of middle and far edges.
    per_class : int
        Atoms or edges drawn of each class.
    least : int
        Classes with fewer are left out.
    drift_atoms : int
        Atoms drawn of each set for the drift.
    bootstrap, drift_bootstrap : int
        Resamples of the cluster scores and of the exact Wasserstein distance.
    label : str
        Property of the structures, for TransRate; empty for none.
    nbins : int
        Bins of the property.
    seed : int
        Seed of every draw.
    """

    clusters_on: str
    pairs: list[str] = field(default_factory=lambda: ["C-H", "C-O"])
    windows: Windows = field(default_factory=Windows)
    per_class: int = 2000
    least: int = 20
    drift_atoms: int = 5000
    bootstrap: int = 100
    drift_bootstrap: int = 5
    label: str = ""
    nbins: int = 10
    seed: int = 0


@dataclass
class Collapse:
    """Tables and points; the first checkpoint is the reference.

    Parameters
    ----------
    clusters, drift, layers, elements : list of dict
        Rows of the tables.
    clouds : dict
        ``atoms`` and ``edges`` to the labels of the points and each checkpoint's t-SNE.
    similarities : dict
        Checkpoint to its type map and cosines.
    notes : list of str
        What was left out, and why.
    """

    clusters: list[dict[str, Any]] = field(default_factory=list)
    drift: list[dict[str, Any]] = field(default_factory=list)
    layers: list[dict[str, Any]] = field(default_factory=list)
    elements: list[dict[str, Any]] = field(default_factory=list)
    clouds: dict[str, tuple[np.ndarray, dict[str, np.ndarray]]] = field(default_factory=dict)
    similarities: dict[str, tuple[list[str], np.ndarray]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Plan:
    """Which atoms and edges of a set are looked at, the same for every checkpoint."""

    drift_atoms: np.ndarray
    class_atoms: np.ndarray
    labels: np.ndarray
    edges: Edges | None

    @property
    def atoms(self) -> np.ndarray:
        """Every atom whose representation is needed, ascending."""
        return np.union1d(self.drift_atoms, self.class_atoms)


def analyse_collapse(
    backbones: list[Backbone],
    sets: list[StructureSet],
    options: Options,
    say: Callable[[str], None] = lambda _text: None,
) -> Collapse:
    """Compare checkpoints with the first of them.

    Parameters
    ----------
    backbones : list of Backbone
        The reference and the others.
    sets : list of StructureSet
        For instance train, ID and OOD. Structures with an element that a checkpoint does not know
        are left out, and noted.
    options : Options
        What is looked at.
    say : callable
        Takes a line about what is being done.

    Returns
    -------
    Collapse

    Raises
    ------
    UserError
        If the checkpoints cannot be compared.
    """
    names = [s.name for s in sets]
    if options.clusters_on not in names:
        raise UserError(
            f"--clusters-on {options.clusters_on}: no such set (there: {', '.join(names)})"
        )
    reference = backbones[0]
    result = Collapse()
    for number, structures in enumerate(_known_to_all(sets, backbones, result.notes)):
        clustered = structures.name == options.clusters_on
        plan = _plan(structures, options, result.notes, clustered=clustered, number=number)
        say(f"{structures.name}: {len(structures)} structures, {len(plan.atoms)} atoms looked at")
        seen = {
            b.name: embed(
                b,
                structures,
                atoms=plan.atoms,
                layer_atoms=plan.drift_atoms if clustered else None,
                edges=plan.edges,
                progress=True,
            )
            for b in backbones
        }
        _add_drift(result, structures.name, plan, seen, options, say)
        _add_transrate(result, structures, seen, options)
        if clustered:
            _add_layer_cka(result, structures.name, seen)
            _add_clusters(result, plan, seen, options, say)
    for backbone in backbones:
        if backbone is not reference:
            for layer, value in weight_drift(reference.weights(), backbone.weights()).items():
                _layer_row(result, "weight drift", backbone.name, "", layer, value)
        _add_elements(result, backbone)
    return result


def _known_to_all(
    sets: list[StructureSet], backbones: list[Backbone], notes: list[str]
) -> list[StructureSet]:
    """Leave out the structures with elements that not every checkpoint knows, and note it."""
    symbols = [s for s in backbones[0].type_map if all(s in b.type_map for b in backbones)]
    kept = []
    for structures in sets:
        known, note = structures.with_elements(symbols)
        if len(known) < 2:
            raise UserError(f"{note}: too few are left; compare checkpoints that know them")
        notes += [note] if note else []
        kept.append(known)
    return kept


def _plan(
    structures: StructureSet, options: Options, notes: list[str], *, clustered: bool, number: int
) -> _Plan:
    rng = np.random.default_rng([options.seed, number])
    natoms = int(structures.natoms.sum())
    chosen = np.sort(rng.permutation(natoms)[: options.drift_atoms])
    if len(chosen) < options.drift_atoms:
        notes.append(
            f"drift on {structures.name}: {natoms} atoms, fewer than {options.drift_atoms}"
        )
    if not clustered:
        return _Plan(chosen, np.array([], dtype=int), np.array([]), None)
    draw = {"per_class": options.per_class, "least": options.least, "seed": options.seed}
    labels = atom_classes(structures)
    atoms, rare = sample_classes(labels, **draw)
    _note_rare(notes, "atoms", structures.name, rare)
    edges = None
    if options.pairs:
        every = find_edges(structures, options.pairs, options.windows)
        rows, rare = sample_classes(every.labels, **draw)
        _note_rare(notes, "edges", structures.name, rare)
        edges = every.take(rows)
    return _Plan(chosen, atoms, labels[atoms], edges)


def _note_rare(notes: list[str], kind: str, name: str, rare: dict[str, int]) -> None:
    if rare:
        listed = ", ".join(f"{label}: {count}" for label, count in rare.items())
        notes.append(f"{kind} of {name}: classes with too few members left out ({listed})")


def _add_drift(
    result: Collapse,
    name: str,
    plan: _Plan,
    seen: dict[str, Embedding],
    options: Options,
    say: Callable[[str], None],
) -> None:
    rows = np.searchsorted(plan.atoms, plan.drift_atoms)
    reference, *others = seen
    start = seen[reference].node[rows]
    for other in others:
        say(f"drift of {other} on {name}")
        moved = drift(
            start, seen[other].node[rows], bootstrap=options.drift_bootstrap, seed=options.seed
        )
        result.drift.append({"model": other, "set": name, "atoms": len(rows), **asdict(moved)})


def _layer_row(
    result: Collapse, quantity: str, model: str, name: str, layer: str, value: float
) -> None:
    row = {"quantity": quantity, "model": model, "set": name, "layer": layer, "value": value}
    result.layers.append(row)


def _add_layer_cka(result: Collapse, name: str, seen: dict[str, Embedding]) -> None:
    reference, *others = seen
    start = seen[reference].layers
    for other in others:
        layers = seen[other].layers
        if len(layers) != len(start):
            raise UserError(
                f"{reference} has {len(start)} message-passing layers and {other} {len(layers)}; "
                "only checkpoints of one descriptor can be compared layer by layer"
            )
        for number, (before, after) in enumerate(zip(start, layers, strict=True), start=1):
            value = linear_cka(before, after)
            _layer_row(result, "CKA", other, name, f"layer {number}", value)


def _add_transrate(
    result: Collapse, structures: StructureSet, seen: dict[str, Embedding], options: Options
) -> None:
    if not options.label:
        return
    classes = bin_target(structures.label(options.label), nbins=options.nbins)
    shuffled = np.random.default_rng(options.seed).permutation(classes)
    for name, embedding in seen.items():
        # with few structures the rates inside the bins are too small: the shuffled labels show it
        for line, told in ((name, classes), (name + SHUFFLED, shuffled)):
            for number, value in enumerate(layer_profile(embedding.pooled, told), start=1):
                layer = f"layer {number}"
                _layer_row(result, "TransRate", line, structures.name, layer, float(value))


def _add_clusters(
    result: Collapse,
    plan: _Plan,
    seen: dict[str, Embedding],
    options: Options,
    say: Callable[[str], None],
) -> None:
    rows = np.searchsorted(plan.atoms, plan.class_atoms)
    atoms = {name: embedding.node[rows] for name, embedding in seen.items()}
    kinds = {"atoms": (plan.labels, atoms)}
    if plan.edges is not None:
        kept = _edges_of_all(plan.edges, seen, options, result.notes)
        if kept is not None:
            kinds["edges"] = kept
    for kind, (labels, features) in kinds.items():
        clouds = {}
        for name, points in features.items():
            say(f"t-SNE of {len(points)} {kind}, {name}")
            clouds[name] = flatten(points, seed=options.seed)
        result.clouds[kind] = (labels, clouds)
        for space, table in (("t-SNE", clouds), ("raw", features)):
            _score(result, kind, space, labels, table, options)


def _edges_of_all(
    edges: Edges, seen: dict[str, Embedding], options: Options, notes: list[str]
) -> tuple[np.ndarray, dict[str, np.ndarray]] | None:
    """Keep the edges that every checkpoint represents, in classes that are large enough."""
    if any(embedding.edge.shape[1] == 0 for embedding in seen.values()):
        notes.append("edges: a descriptor without edge representations; left out")
        return None
    found = np.all([np.isfinite(e.edge).all(axis=1) for e in seen.values()], axis=0)
    for name in np.unique(edges.labels):
        members = edges.labels == name
        if found[members].sum() < options.least:
            notes.append(
                f"edges '{name}': {found[members].sum()} of {members.sum()} are in the neighbour "
                "lists of all checkpoints (beyond the cutoff, or e_sel too small); left out. Other "
                "distances: --middle, --far"
            )
            found &= ~members
        elif not found[members].all():
            notes.append(
                f"edges '{name}': {(~found[members]).sum()} of {members.sum()} are not in the "
                "neighbour lists of all checkpoints; left out"
            )
    if len(np.unique(edges.labels[found])) < 2:
        notes.append("edges: fewer than two classes remain; left out")
        return None
    return edges.labels[found], {name: e.edge[found] for name, e in seen.items()}


def _score(
    result: Collapse,
    kind: str,
    space: str,
    labels: np.ndarray,
    table: dict[str, np.ndarray],
    options: Options,
) -> None:
    base: float | None = None
    for name, points in table.items():
        scores = cluster_scores(points, labels, bootstrap=options.bootstrap, seed=options.seed)
        base = scores.davies_bouldin if base is None else base
        result.clusters.append(
            {
                "kind": kind,
                "space": space,
                "model": name,
                "relative": scores.davies_bouldin / base,
                **asdict(scores),
                "classes": len(np.unique(labels)),
                "points": len(labels),
            }
        )


def _add_elements(result: Collapse, backbone: Backbone) -> None:
    found = element_similarity(backbone)
    if found is None:
        result.notes.append(f"{backbone.name}: no type embedding, so no element similarities")
        return
    symbols, cosines = found
    result.similarities[backbone.name] = found
    for i, j in np.argwhere(np.triu(np.ones_like(cosines), 1)):
        result.elements.append(
            {"model": backbone.name, "a": symbols[i], "b": symbols[j], "cosine": cosines[i, j]}
        )
