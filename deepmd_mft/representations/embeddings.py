"""Node, edge and layer representations of many structures, in batches.

Only what is asked for is kept, in single precision: 100,000 atoms of width 128 are 51 MB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm import tqdm

if TYPE_CHECKING:
    from deepmd_mft.inference.network import Seen
    from deepmd_mft.representations.backbone import Backbone
    from deepmd_mft.representations.classes import Edges
    from deepmd_mft.structures.structure_set import StructureSet

__all__ = ["Embedding", "embed"]

#: A neighbour of the list is the one that was meant if it lies this near, in Angstrom.
SAME_PLACE = 1e-2


@dataclass(frozen=True)
class Embedding:
    """What :func:`embed` returns, all single precision.

    Parameters
    ----------
    node : np.ndarray
        Output of the descriptor for the chosen atoms, shape ``natoms x dim``.
    layers : np.ndarray
        Node representation after each message-passing layer for the atoms chosen for that,
        shape ``nlayers x natoms x dim``.
    pooled : np.ndarray
        Mean over the atoms of a structure after each layer, shape
        ``nlayers x nstructures x dim``; JMP, arXiv 2310.16802, eq. 3. A descriptor without layers
        counts as one layer.
    edge : np.ndarray
        Edge representation of the chosen edges, shape ``nedges x e_dim``; NaN where the
        descriptor's neighbour list lacks the edge (cutoff, or ``e_sel`` too small).
    edge_pooled : np.ndarray
        Mean over all edges of a structure, shape ``nstructures x e_dim``; zero columns if the
        descriptor has no edge representation.
    """

    node: np.ndarray
    layers: np.ndarray
    pooled: np.ndarray
    edge: np.ndarray
    edge_pooled: np.ndarray


def embed(
    backbone: Backbone,
    structures: StructureSet,
    *,
    atoms: np.ndarray | None = None,
    layer_atoms: np.ndarray | None = None,
    edges: Edges | None = None,
    batch_atoms: int = 1024,
    progress: bool = False,
) -> Embedding:
    """Evaluate the representations of a set.

    Parameters
    ----------
    backbone : Backbone
        A loaded checkpoint.
    structures : StructureSet
        Molecules and crystals, mixed as they come.
    atoms : np.ndarray of int, optional
        Atoms whose node representation is kept, counted through the set; all by default.
    layer_atoms : np.ndarray of int, optional
        Atoms whose representation after each layer is kept; none by default.
    edges : Edges, optional
        Edges whose representation is kept; none by default.
    batch_atoms : int
        Structures of one size are evaluated together up to so many atoms.
    progress : bool
        Show a bar.

    Returns
    -------
    Embedding

    Raises
    ------
    UserError
        If the checkpoint does not know an element.
    """
    batches = structures.batches(backbone.type_map, atoms=batch_atoms)
    every = np.arange(structures.natoms.sum())
    store = _Store(structures, every if atoms is None else atoms, layer_atoms, edges)
    bar = tqdm(
        total=len(structures),
        desc=f"{backbone.name} {structures.name}",
        unit=" structures",
        disable=not progress,
        mininterval=1.0,
    )
    with bar:
        for seen in backbone.look(batches, lambda seen: seen, layers=True, edges=True):
            store.add(seen)
            bar.update(len(seen.rows))
    return store.finish()


class _Store:
    """Arrays that the batches fill."""

    def __init__(
        self,
        structures: StructureSet,
        atoms: np.ndarray,
        layer_atoms: np.ndarray | None,
        edges: Edges | None,
    ) -> None:
        self.starts = structures.starts
        self.nstructures = len(structures)
        self.edges = edges
        self.place = {
            name: _places(int(structures.natoms.sum()), chosen)
            for name, chosen in (("node", atoms), ("layers", layer_atoms))
            if chosen is not None
        }
        self.natoms = {"node": len(atoms), "layers": 0 if layer_atoms is None else len(layer_atoms)}
        self.by_structure: dict[int, list[int]] = {}
        if edges is not None:
            for row, number in enumerate(edges.structure.tolist()):
                self.by_structure.setdefault(number, []).append(row)
        self.parts: dict[str, np.ndarray] = {}

    def _array(self, name: str, *shape: int) -> np.ndarray:
        if name not in self.parts:
            fill = np.nan if name == "edge" else 0.0
            self.parts[name] = np.full(shape, fill, dtype=np.float32)
        return self.parts[name]

    def add(self, batch: Seen) -> None:
        """Take what is wanted from one batch."""
        node = batch.node
        numbers = self.starts[batch.rows][:, None] + np.arange(node.shape[1])[None, :]
        self._keep(self._array("node", self.natoms["node"], node.shape[2]), node, numbers)
        layers = batch.layers or [node]
        shape = (len(layers), self.natoms["layers"], layers[0].shape[2])
        kept = self._array("layers", *shape)
        pooled = self._array("pooled", len(layers), self.nstructures, layers[0].shape[2])
        for number, layer in enumerate(layers):
            if self.natoms["layers"]:
                self._keep(kept[number], layer, numbers, "layers")
            pooled[number, batch.rows] = layer.mean(dim=1).cpu().numpy()
        self._add_edges(batch)

    def _keep(
        self,
        target: np.ndarray,
        values: torch.Tensor,
        numbers: np.ndarray,
        which: str = "node",
    ) -> None:
        place = self.place[which][numbers]
        wanted = place >= 0
        target[place[wanted]] = values.cpu().numpy()[wanted]

    def _add_edges(self, batch: Seen) -> None:
        found, coord = batch.edges, batch.coord
        nedges = 0 if self.edges is None else len(self.edges)
        if found is None or coord is None:
            self._array("edge", nedges, 0)
            self._array("edge_pooled", self.nstructures, 0)
            return
        flat, nlist = found.values, found.nlist
        target = self._array("edge", nedges, flat.shape[1])
        frame, centre, slot = torch.nonzero(found.present, as_tuple=True)
        total = torch.zeros(len(batch.rows), flat.shape[1], dtype=flat.dtype, device=flat.device)
        total.index_add_(0, frame, flat)
        count = torch.bincount(frame, minlength=len(batch.rows)).clamp(min=1)
        pooled = self._array("edge_pooled", self.nstructures, flat.shape[1])
        pooled[batch.rows] = (total / count[:, None]).cpu().numpy()
        wanted = [
            (f, r) for f, n in enumerate(batch.rows) for r in self.by_structure.get(int(n), [])
        ]
        if not wanted or self.edges is None:
            return
        index = torch.full(nlist.shape, -1, dtype=torch.long, device=nlist.device)
        index[frame, centre, slot] = torch.arange(len(frame), device=nlist.device)
        frames, rows = (torch.as_tensor(x) for x in zip(*wanted, strict=True))
        centres = torch.as_tensor(self.edges.centre[rows.numpy()])
        vector = torch.as_tensor(self.edges.vector[rows.numpy()]).to(coord)
        frames, centres = frames.to(nlist.device), centres.to(nlist.device)
        neighbours = nlist[frames, centres]
        there = coord[frames[:, None], neighbours.clamp(min=0)]
        gap = torch.linalg.norm(
            there - coord[frames, centres][:, None] - vector[:, None], dim=-1
        ).masked_fill(neighbours < 0, float("inf"))
        nearest, best = gap.min(dim=1)
        place = index[frames, centres, best]
        known = (nearest < SAME_PLACE) & (place >= 0)
        chosen = flat[place[known]]
        target[rows.numpy()[known.cpu().numpy()]] = chosen.cpu().numpy()

    def finish(self) -> Embedding:
        """Return the filled arrays."""
        return Embedding(**self.parts)


def _places(natoms: int, chosen: np.ndarray) -> np.ndarray:
    """Where each atom of the set is kept, -1 if it is not; shape ``natoms``."""
    place = np.full(natoms, -1)
    place[chosen] = np.arange(len(chosen))
    return place
