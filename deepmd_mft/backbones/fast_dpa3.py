"""DPA-3 as deepmd-kit defines it, in fewer passes over memory.

The parameters, their names, the numbers and the JSON are deepmd-kit's: an instance of its class is
given another ``forward``. What is left out is work, not terms: a neighbour axis as wide as the
neighbours there are, edges and angles that no output depends on, gathers that two messages share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from deepmd_mft.backbones.activations import Activation, activation
from deepmd_mft.backbones.message import message
from deepmd_mft.backbones.rows import Rows
from deepmd_mft.backbones.symmetrize import project
from deepmd_mft.backbones.update import update
from deepmd_mft.bridge.dpa3 import (
    DescrptBlockRepflows,
    DescrptDPA3,
    RepFlowLayer,
    compute_exp_sw,
    compute_smooth_weight,
)
from deepmd_mft.errors import UserError

#: Setting this environment variable to 0 leaves deepmd-kit's own code in place.
SWITCH = "DP_MFT_FAST"
#: Entries of a batch's dense matrices of directions up to which they are made (64 MiB of float32).
DENSE_UP_TO = 2**24


def speed_up(descriptor: DescrptDPA3, *, equivariant: bool = True) -> None:
    """Let a descriptor of deepmd-kit compute the same in less time.

    Parameters
    ----------
    descriptor : DescrptDPA3
        One that :func:`deepmd_mft.backbones.switch.why_not` has nothing against.
    equivariant : bool
        Whether the head uses the rotation matrix or the edges. If not, the last layer's edges and
        angles are not computed, and the descriptor returns None for them.
    """
    block = descriptor.repflows
    if not isinstance(block, FastRepflows):
        block.__class__ = FastRepflows
    block.equivariant = equivariant


class FastRepflows(DescrptBlockRepflows):
    """deepmd-kit's block of DPA-3 layers with another ``forward``."""

    equivariant: bool = True
    #: Share of the edges whose messages are left out, see :mod:`.edge_dropout`.
    dropped: float = 0.0
    masks: torch.Generator | None = None

    def forward(
        self,
        nlist: torch.Tensor,
        extended_coord: torch.Tensor,
        extended_atype: torch.Tensor,
        extended_atype_embd: Any = None,  # a tensor, as the mapping unless there is a comm_dict
        mapping: Any = None,
        comm_dict: dict[str, torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor | None, ...]:
        """Compute what deepmd-kit's own ``forward`` computes; see there."""
        if comm_dict is not None:
            return super().forward(
                nlist, extended_coord, extended_atype, extended_atype_embd, mapping, comm_dict
            )
        nframes, nloc = nlist.shape[:2]
        graph = self._graph(nlist, extended_coord, extended_atype, mapping)
        function = activation(self.activation_function)
        node = function(extended_atype_embd[:, :nloc].reshape(nframes * nloc, self.n_dim))
        edge = self.edge_embd(graph.edge_input)
        if not self.edge_init_use_dist:
            edge = function(edge)
        angle = self.angle_embd(graph.angle_input)
        last = len(self.layers) - 1
        for number, layer in enumerate(self.layers):
            left = last - number + self.equivariant  # layers that still need edges
            node, edge, angle = _layer(
                layer, function, graph, node, edge, angle, edges=left > 0, angles=left > 1
            )
        node = node.reshape(nframes, nloc, self.n_dim)
        if not self.equivariant:
            return node, None, None, None, None
        rotation = project(graph.vectors, edge, graph.edges) * 3**0.5
        rotation = rotation.reshape(nframes, nloc, 3, self.e_dim).transpose(2, 3)
        return node, edge, graph.h2, rotation, graph.switch

    def _graph(
        self,
        nlist: torch.Tensor,
        extended_coord: torch.Tensor,
        extended_atype: torch.Tensor,
        mapping: torch.Tensor,
    ) -> _Graph:
        """Return edges and angles of a batch, and what the network starts from."""
        nframes, nloc = nlist.shape[:2]
        nlist = torch.where(self.emask(nlist, extended_atype) != 0, nlist, -1)
        mask = nlist >= 0
        self._check_edges(mask, extended_coord, extended_atype)
        frame, atom, column = torch.nonzero(mask, as_tuple=True)
        end = nlist[mask]
        edges = _edges(frame * nloc + atom, frame * nloc + mapping[frame, end], nframes * nloc)

        position = extended_coord.reshape(-1, 3)
        nall = len(position) // nframes
        start = position.index_select(0, frame * nall + atom)
        diff = position.index_select(0, frame * nall + end) - start
        length = torch.linalg.norm(diff, dim=-1)
        switch = self._switch(length, self.e_rcut_smth, self.e_rcut)
        inverse = 1 / (length + self.env_protection)
        radial = switch * inverse
        matrix = torch.cat([radial[:, None], diff * (radial * inverse)[:, None]], dim=1)
        place = extended_atype[frame, atom] * self.nnei + column
        matrix = matrix - self.mean.reshape(-1, 4).index_select(0, place)
        matrix = matrix / self.stddev.reshape(-1, 4).index_select(0, place)
        edge_input, h2 = torch.split(matrix, [1, 3], dim=1)
        keep = self._keep(switch)
        weight = switch if keep is None else switch * keep
        # Products of two sums are divided by 3: each sum by its root.
        e_norm = self.nnei / self.sel_reduce_factor
        vectors = h2 * (weight * (3 * e_norm) ** -0.5)[:, None]

        near = torch.nonzero(length.detach() < self.a_rcut).squeeze(1)
        centre = edges.first.index_select(0, near)
        angles = _angles(centre, nframes * nloc)
        self._check_angles(centre)
        near_length = length.index_select(0, near)
        direction = diff.index_select(0, near) / (near_length + 1e-6)[:, None]
        cosine = direction.index_select(0, angles.first) * direction.index_select(0, angles.second)
        near_switch = self._switch(near_length, self.a_rcut_smth, self.a_rcut)
        near_switch = near_switch * (self.a_sel / self.sel_reduce_factor) ** -0.25
        angle_scale = near_switch.index_select(0, angles.first)
        angle_scale = angle_scale * near_switch.index_select(0, angles.second)
        if keep is not None:
            angle_scale = angle_scale * _keep_angles(keep.index_select(0, near), angles)
        return _Graph(
            edges=edges,
            near=near,
            centre=centre,
            angles=angles,
            edge_input=length[:, None] if self.edge_init_use_dist else edge_input,
            angle_input=cosine.sum(-1, keepdim=True) * ((1 - 1e-6) / torch.pi**0.5),
            h2=h2,
            switch=switch,
            vectors=vectors,
            dense_vectors=_dense(vectors, edges, nframes, nloc),
            edge_scale=weight / e_norm,
            angle_scale=angle_scale,
        )

    def _switch(self, length: torch.Tensor, smooth: float, rcut: float) -> torch.Tensor:
        """Return the switch function of distances."""
        function = compute_exp_sw if self.use_exp_switch else compute_smooth_weight
        return function(length, smooth, rcut)

    def _keep(self, edges: torch.Tensor) -> torch.Tensor | None:
        """Return 0 for edges that are dropped and 1 / (1 - p) for the others; None for p = 0."""
        if not (self.dropped and self.masks is not None):
            return None
        drawn = torch.rand(len(edges), generator=self.masks, device="cpu").to(edges)
        return (drawn >= self.dropped).to(edges.dtype) / (1 - self.dropped)

    def _check_angles(self, centre: torch.Tensor) -> None:
        """Raise if the selection leaves out a neighbour within the angles' cutoff."""
        found = int(torch.bincount(centre).max()) if len(centre) else 0
        if found > self.a_sel:
            raise UserError(_too_many("a_sel", self.a_sel, found, self.a_rcut))

    def _check_edges(self, mask: torch.Tensor, coord: torch.Tensor, atype: torch.Tensor) -> None:
        """Raise if the selection leaves out a neighbour within the edges' cutoff."""
        if not mask[:, :, -1].any():
            return
        # The list is full: has the search left neighbours out?
        nloc = mask.shape[1]
        position = coord.detach().reshape(len(atype), -1, 3)
        distance = torch.cdist(position[:, :nloc], position)
        real = (atype >= 0)[:, None, :] & (atype[:, :nloc] >= 0)[:, :, None]
        found = int(((distance <= self.e_rcut) & real).sum(-1).max()) - 1
        if found > self.nnei:
            raise UserError(_too_many("e_sel", self.nnei, found, self.e_rcut))


@dataclass
class _Graph:
    """A batch: its edges and angles, what the network starts from, and how sums are scaled.

    ``near`` are the edges within the angles' cutoff, between which angles lie, and ``centre`` the
    atoms at which these start.
    """

    edges: Rows
    near: torch.Tensor
    centre: torch.Tensor
    angles: Rows
    edge_input: torch.Tensor
    angle_input: torch.Tensor
    h2: torch.Tensor
    switch: torch.Tensor
    vectors: torch.Tensor
    dense_vectors: torch.Tensor | None
    edge_scale: torch.Tensor
    angle_scale: torch.Tensor

    def project_nodes(self, node: torch.Tensor) -> torch.Tensor:
        """Sum over each atom's neighbours: vector times node, natoms x 3 x n_dim."""
        if self.dense_vectors is None:
            return project(self.vectors, node.index_select(0, self.edges.second), self.edges)
        frames = node.view(len(self.dense_vectors), -1, node.shape[1])
        return torch.bmm(self.dense_vectors, frames).view(len(node), 3, -1)


def _layer(
    layer: RepFlowLayer,
    function: Activation,
    graph: _Graph,
    node: torch.Tensor,
    edge: torch.Tensor,
    angle: torch.Tensor,
    *,
    edges: bool,
    angles: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Apply a layer; without ``edges`` to the nodes alone, without ``angles`` to nodes and edges.

    Parameters
    ----------
    node, edge, angle : torch.Tensor
        natoms x n_dim, nedge x e_dim and nangle x a_dim.

    Returns
    -------
    tuple of torch.Tensor
        The same, updated or as they were.
    """
    to_node, new_edge = _edge_message(layer, function, graph, node, edge, edges=edges)
    moments = torch.cat(
        [
            _moments(project(graph.vectors, edge, graph.edges), layer.axis_neuron),
            _moments(graph.project_nodes(node), layer.axis_neuron),
        ],
        dim=1,
    )
    itself, symmetric, message_residual = layer.n_residual
    new_node = torch.addcmul(node, message_residual, to_node)
    for residual, net, source in (
        (itself, layer.node_self_mlp, node),
        (symmetric, layer.node_sym_linear, moments),
    ):
        new_node = update(new_node, source, net.matrix, net.bias, residual, function)
    if new_edge is None:
        return new_node, edge, angle
    near = edge.index_select(0, graph.near)
    to_near, new_angle = _angle_message(layer, function, graph, node, near, angle, angles=angles)
    # Edges without angles are updated by the activated bias, all alike.
    net, residual = layer.edge_angle_linear2, layer.e_residual[1]
    near = new_edge.index_select(0, graph.near)
    near = update(near, to_near, net.matrix, net.bias, residual, function)
    new_edge = (new_edge + residual * function(net.bias)).index_copy(0, graph.near, near)
    return new_node, new_edge, angle if new_angle is None else new_angle


def _edge_message(
    layer: RepFlowLayer,
    function: Activation,
    graph: _Graph,
    node: torch.Tensor,
    edge: torch.Tensor,
    *,
    edges: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the edges' message to the nodes, and the edges with their own update."""
    matrix, bias = layer.node_edge_linear.matrix, layer.node_edge_linear.bias
    if edges:
        matrix = torch.cat([matrix, layer.edge_self_linear.matrix], dim=1)
        bias = torch.cat([bias, layer.edge_self_linear.bias])
    start, end, own = torch.split(matrix, [layer.n_dim, layer.n_dim, layer.e_dim])
    return message(
        edge,
        own,
        torch.addmm(_and_zeros(bias), node, torch.cat([start, end], dim=1)),
        graph.edge_scale,
        layer.e_residual[0] if edges else None,
        graph.edges,
        function,
    )


def _angle_message(
    layer: RepFlowLayer,
    function: Activation,
    graph: _Graph,
    node: torch.Tensor,
    edge: torch.Tensor,
    angle: torch.Tensor,
    *,
    angles: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the angles' message to the edges, and the angles with their own update."""
    matrix, bias = layer.edge_angle_linear1.matrix, layer.edge_angle_linear1.bias
    if angles:
        matrix = torch.cat([matrix, layer.angle_self_linear.matrix], dim=1)
        bias = torch.cat([bias, layer.angle_self_linear.bias])
    if layer.a_compress_n_linear is not None:
        node, edge = layer.a_compress_n_linear(node), layer.a_compress_e_linear(edge)
    elif layer.a_compress_rate != 0:
        node = node[:, : layer.n_a_compress_dim]
        edge = edge[:, : layer.e_a_compress_dim]
    own, of_node, other, main = torch.split(
        matrix, [layer.a_dim, node.shape[1], edge.shape[1], edge.shape[1]]
    )
    # The angle's atom acts on all its edges alike: added there, before the gather to angles.
    centre = torch.addmm(_and_zeros(bias), node, _and_zeros(of_node))
    centre = centre.index_select(0, graph.centre)
    return message(
        angle,
        own,
        torch.addmm(centre, edge, torch.cat([main, other], dim=1)),
        graph.angle_scale,
        layer.a_residual[0] if angles else None,
        graph.angles,
        function,
    )


def _and_zeros(matrix: torch.Tensor) -> torch.Tensor:
    """Return a matrix, or a row, with as many columns of zeros after its own."""
    return torch.nn.functional.pad(matrix, (0, matrix.shape[-1]))


def _moments(projected: torch.Tensor, axis_neuron: int) -> torch.Tensor:
    """Return the rotation-invariant products of neighbour sums, natoms x (axis x dim)."""
    axis = projected[..., :axis_neuron].transpose(1, 2)
    return torch.bmm(axis, projected).flatten(1)


def _dense(vectors: torch.Tensor, edges: Rows, nframes: int, nloc: int) -> torch.Tensor | None:
    """Return the edges' vectors as a matrix for each frame, nframes x (3 nloc) x nloc.

    Several edges between two atoms, to periodic images, act alike and are summed. A product with
    this matrix is quicker than a gather of nodes to edges, as long as it is not much larger than
    the edges: None for large frames.
    """
    if 3 * nframes * nloc**2 > DENSE_UP_TO:
        return None
    places = edges.first * nloc + edges.second % nloc
    dense = vectors.new_zeros(nframes * nloc * nloc, 3).index_add(0, places, vectors)
    dense = dense.view(nframes, nloc, nloc, 3).transpose(2, 3)
    return dense.reshape(nframes, 3 * nloc, nloc)


def _edges(start: torch.Tensor, end: torch.Tensor, natoms: int) -> Rows:
    """Return the edges of a batch from the atoms at which they start (sorted) and end."""
    return Rows(
        first=start,
        second=end,
        first_offsets=_offsets(torch.bincount(start, minlength=natoms)),
        by_second=torch.argsort(end, stable=True),
        second_offsets=_offsets(torch.bincount(end, minlength=natoms)),
    )


def _angles(centre: torch.Tensor, natoms: int) -> Rows:
    """Return the angles of a batch: the near edges ij and ik that they lie between.

    Every two near edges of an atom make two angles, (j, k) and (k, j), and each edge one with
    itself. So the angles sorted by ik are the mirror images of those sorted by ij.
    """
    number = torch.arange(len(centre), device=centre.device)
    counts = torch.bincount(centre, minlength=natoms)
    first_edge = _offsets(counts)[:-1].index_select(0, centre)  # of the same atom
    counts = counts.index_select(0, centre)
    offsets = _offsets(counts)
    first = number.repeat_interleave(counts)
    here = torch.arange(len(first), device=centre.device) - offsets.index_select(0, first)
    second = first_edge.index_select(0, first) + here
    mirror = offsets.index_select(0, second) + (first - first_edge.index_select(0, first))
    return Rows(first, second, offsets, mirror, offsets)


def _keep_angles(keep: torch.Tensor, angles: Rows) -> torch.Tensor:
    """Return the weight of each angle, 1 in the mean: that of its two edges, or of its only one."""
    other = torch.where(angles.first == angles.second, 1.0, keep.index_select(0, angles.second))
    return keep.index_select(0, angles.first) * other


def _offsets(counts: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pad(torch.cumsum(counts, 0), (1, 0))


def _too_many(name: str, selected: int, found: int, rcut: float) -> str:
    return (
        f"an atom has {found} neighbours within {rcut:g} Angstrom, but {name} keeps only the "
        f"nearest {selected}: the rest would be left out without a word. `dp-mft tighten` finds a "
        f"selection that holds them all; {SWITCH}=0 lets deepmd-kit leave them out"
    )
