"""Node, edge and layer representations of many structures, in batches.

Only what is asked for is kept, in single precision: 100,000 atoms of width 128 are 51 MB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from deepmd_mft.bridge.models import message_layers, watch_layer
from deepmd_mft.errors import UserError
from deepmd_mft.structures.elements import ELEMENTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deepmd_mft.representations.backbone import Backbone
    from deepmd_mft.representations.classes import Edges
    from deepmd_mft.structures.sample import Sample

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


@dataclass
class _Batch:
    """One batch and what the descriptor made of it."""

    rows: np.ndarray  # numbers of its structures
    sizes: torch.Tensor  # nf
    output: tuple[Any, ...]
    inputs: tuple[Any, ...]
    layers: list[torch.Tensor]  # nf x nloc x dim each

    @property
    def real(self) -> torch.Tensor:
        """Which atoms are no padding, nf x nloc."""
        nloc = self.output[0].shape[1]
        return torch.arange(nloc, device=self.sizes.device)[None, :] < self.sizes[:, None]


def embed(
    backbone: Backbone,
    structures: Sample,
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
    structures : Sample
        Molecules and crystals, mixed as they come.
    atoms : np.ndarray of int, optional
        Atoms whose node representation is kept, counted through the set; all by default.
    layer_atoms : np.ndarray of int, optional
        Atoms whose representation after each layer is kept; none by default.
    edges : Edges, optional
        Edges whose representation is kept; none by default.
    batch_atoms : int
        Molecules are evaluated together up to so many atoms, padding included; crystals one by
        one, because their images make the batch.
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
    types = _types(backbone, structures)
    every = np.arange(structures.natoms)
    store = _Store(structures, every if atoms is None else atoms, layer_atoms, edges)
    seen: list[torch.Tensor] = []
    captured: dict[str, Any] = {}
    layers = message_layers(backbone.descriptor)
    for layer in layers:
        watch_layer(layer, seen.append)

    def capture(_module: Any, args: Any, output: Any) -> None:
        captured.update(args=args, output=output)

    hook = backbone.descriptor.register_forward_hook(capture)
    bar = tqdm(
        total=len(structures),
        desc=f"{backbone.name} {structures.name}",
        unit=" structures",
        disable=not progress,
        mininterval=1.0,
    )
    try:
        for rows in _batches(structures, batch_atoms):
            seen.clear()
            sizes = _forward(backbone, structures, types, rows)
            store.add(_Batch(rows, sizes, captured["output"], captured["args"], list(seen)))
            bar.update(len(rows))
    finally:
        bar.close()
        hook.remove()
        for layer in layers:
            del layer.forward  # the class's own again
    return store.finish()


class _Store:
    """Arrays that the batches fill."""

    def __init__(
        self,
        structures: Sample,
        atoms: np.ndarray,
        layer_atoms: np.ndarray | None,
        edges: Edges | None,
    ) -> None:
        self.starts = structures.starts
        self.nstructures = len(structures)
        self.edges = edges
        self.place = {
            name: _places(structures.natoms, chosen)
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

    def add(self, batch: _Batch) -> None:
        """Take what is wanted from one batch."""
        node = batch.output[0]
        real = batch.real.cpu().numpy()
        counted = self.starts[batch.rows][:, None] + np.arange(node.shape[1])[None, :]
        numbers = counted[real]
        self._keep(self._array("node", self.natoms["node"], node.shape[2]), node, real, numbers)
        layers = batch.layers or [node]
        shape = (len(layers), self.natoms["layers"], layers[0].shape[2])
        kept = self._array("layers", *shape)
        pooled = self._array("pooled", len(layers), self.nstructures, layers[0].shape[2])
        weight = batch.real.to(layers[0].dtype)[:, :, None]
        for number, layer in enumerate(layers):
            if self.natoms["layers"]:
                self._keep(kept[number], layer, real, numbers, "layers")
            mean = (layer * weight).sum(dim=1) / batch.sizes[:, None]
            pooled[number, batch.rows] = mean.cpu().numpy()
        self._add_edges(batch)

    def _keep(
        self,
        target: np.ndarray,
        values: torch.Tensor,
        real: np.ndarray,
        numbers: np.ndarray,
        which: str = "node",
    ) -> None:
        place = self.place[which][numbers]
        wanted = place >= 0
        target[place[wanted]] = values.cpu().numpy()[real][wanted]

    def _add_edges(self, batch: _Batch) -> None:
        edge = batch.output[2] if len(batch.output) > 2 else None
        nedges = 0 if self.edges is None else len(self.edges)
        if edge is None:
            self._array("edge", nedges, 0)
            self._array("edge_pooled", self.nstructures, 0)
            return
        target = self._array("edge", nedges, edge.shape[-1])
        coord, _, nlist = batch.inputs[:3]
        present = nlist >= 0
        if edge.dim() == 4:  # DPA-2: the nearest of the list, padded beyond a cutoff of its own
            nlist = nlist[:, :, : edge.shape[2]]
            present = (nlist >= 0) & (batch.output[4].reshape(nlist.shape) > 0)
        flat = edge if edge.dim() == 2 else edge[present]
        frame, centre, slot = torch.nonzero(present, as_tuple=True)
        if len(flat) != len(frame):
            raise RuntimeError(
                f"the descriptor has {len(flat)} edges, its neighbour list {len(frame)}"
            )
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
        coord = coord.reshape(len(batch.rows), -1, 3)
        frames, centres = frames.to(nlist.device), centres.to(nlist.device)
        neighbours = nlist[frames, centres]
        there = coord[frames[:, None], neighbours.clamp(min=0)]
        gap = torch.linalg.norm(
            there - coord[frames, centres][:, None] - vector[:, None], dim=-1
        ).masked_fill(neighbours < 0, float("inf"))
        nearest, best = gap.min(dim=1)
        place = index[frames, centres, best]
        found = (nearest < SAME_PLACE) & (place >= 0)
        chosen = flat[place[found]]
        target[rows.numpy()[found.cpu().numpy()]] = chosen.cpu().numpy()

    def finish(self) -> Embedding:
        """Return the filled arrays."""
        return Embedding(**self.parts)


def _places(natoms: int, chosen: np.ndarray) -> np.ndarray:
    """Where each atom of the set is kept, -1 if it is not; shape ``natoms``."""
    place = np.full(natoms, -1)
    place[chosen] = np.arange(len(chosen))
    return place


def _types(backbone: Backbone, structures: Sample) -> list[np.ndarray]:
    """Return the types of the atoms of every structure in the branch's own order."""
    known = {symbol: number for number, symbol in enumerate(backbone.type_map)}
    table = np.array([-1] + [known.get(symbol, -1) for symbol in ELEMENTS])
    types = []
    for number, structure in enumerate(structures.structures):
        own = table[structure.numbers]
        if (own < 0).any():
            missing = sorted({ELEMENTS[z - 1] for z in structure.numbers[own < 0]})
            raise UserError(
                f"model {backbone.name} does not know {', '.join(missing)} of structure {number} "
                f"in set {structures.name} (it knows {', '.join(backbone.type_map)}); leave such "
                "structures out, or take a checkpoint with these elements"
            )
        types.append(own)
    return types


def _batches(structures: Sample, batch_atoms: int) -> Iterator[np.ndarray]:
    """Yield numbers of structures to be evaluated together: molecules of about one size."""
    sizes = structures.sizes
    periodic = np.array([s.cell is not None for s in structures.structures])
    waiting: list[int] = []
    for number in np.flatnonzero(~periodic)[np.argsort(sizes[~periodic], kind="stable")]:
        if waiting and (len(waiting) + 1) * sizes[number] > batch_atoms:
            yield np.array(waiting)
            waiting = []
        waiting.append(int(number))
    if waiting:
        yield np.array(waiting)
    for number in np.flatnonzero(periodic):
        yield np.array([number])


def _forward(
    backbone: Backbone, structures: Sample, types: list[np.ndarray], rows: np.ndarray
) -> torch.Tensor:
    """Evaluate one batch; return the number of atoms of each of its structures."""
    device = next(backbone.descriptor.parameters()).device
    chosen = [structures.structures[row] for row in rows]
    sizes = np.array([len(s.numbers) for s in chosen])
    coord = np.zeros((len(rows), sizes.max(), 3))
    atype = np.full((len(rows), sizes.max()), -1)
    for frame, (row, structure) in enumerate(zip(rows, chosen, strict=True)):
        coord[frame, : sizes[frame]] = structure.positions
        atype[frame, : sizes[frame]] = types[row]
    cell = chosen[0].cell
    box = None if cell is None else torch.as_tensor(cell.reshape(1, 9), device=device)
    with torch.no_grad():
        backbone.model.forward_embedding(
            torch.as_tensor(coord, device=device), torch.as_tensor(atype, device=device), box
        )
    return torch.as_tensor(sizes, device=device)
