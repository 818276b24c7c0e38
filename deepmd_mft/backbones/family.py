"""What is asked of a descriptor: one protocol, whatever its kind.

A kind of descriptor is a :class:`Family`. It is asked about the JSON of a descriptor (its neighbour
lists), about one that is built (its layers, the vectors of its types), about what it returns (its
edges) and about the names of its parameters (the layer of each).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import torch

#: Dimensions of edges that are those of the list alone, and padded to its width.
FLAT, PADDED = 2, 4


@dataclass(frozen=True)
class NeighbourList:
    """A neighbour list that the JSON of a descriptor asks for.

    Attributes
    ----------
    rcut_key, sel_key : str
        Its two keys, such as ``e_rcut`` and ``e_sel``, or ``repinit/rcut`` and ``repinit/nsel``.
    rcut : float
        In Angstrom.
    sel : int, list of int, or str
        How many neighbours it holds; in all, of each type, or to be found (``auto``).
    """

    rcut_key: str
    sel_key: str
    rcut: float
    sel: int | list[int] | str


@dataclass(frozen=True)
class Edges:
    """The edge representations that a descriptor gives for a batch.

    Attributes
    ----------
    values : torch.Tensor
        nedges x dim.
    nlist : torch.Tensor
        nf x nloc x nnei, the neighbour at the end of each.
    present : torch.Tensor
        nf x nloc x nnei, where there is one; ``nedges`` of them, in the order of ``values``.
    """

    values: torch.Tensor
    nlist: torch.Tensor
    present: torch.Tensor


class Family:
    """A kind of descriptor. What is here holds for one with a single list and no layers.

    Attributes
    ----------
    types : tuple of str
        What it is called in the JSON (``type``); deepmd-kit's class of each is a descriptor of it.
    lists : tuple of (str, str, str)
        The section of each neighbour list in the JSON (empty for the descriptor itself), and its
        keys for the cutoff and the number of neighbours.
    layers_in : str
        Where its message-passing layers are, as in the names of parameters; empty for none.
    """

    types: ClassVar[tuple[str, ...]] = ()
    lists: ClassVar[tuple[tuple[str, str, str], ...]] = (("", "rcut", "sel"),)
    layers_in: ClassVar[str] = ""

    def neighbour_lists(self, params: dict[str, Any]) -> list[NeighbourList]:
        """Return the neighbour lists that the JSON of a descriptor asks for, the widest first.

        Parameters
        ----------
        params : dict
            The JSON of the descriptor. Lists of which it says nothing are left out.
        """
        found = []
        for section, rcut_key, sel_key in self.lists:
            part = params.get(section, {}) if section else params
            rcut, sel = part.get(rcut_key), part.get(sel_key)
            if isinstance(rcut, int | float) and sel is not None:
                prefix = self.prefix(section)
                found.append(NeighbourList(prefix + rcut_key, prefix + sel_key, float(rcut), sel))
        return found

    def prefix(self, section: str) -> str:
        """Return what goes before the keys of a section, to tell them from another's."""
        return f"{section}/" if section else ""

    def layers(self, descriptor: torch.nn.Module) -> list[torch.nn.Module]:
        """Return the message-passing layers, in order; none if it has no such."""
        return list(descriptor.get_submodule(self.layers_in)) if self.layers_in else []

    def node(self, returned: torch.Tensor, nframes: int) -> torch.Tensor:  # noqa: ARG002
        """Return the node representation, nf x nloc x dim, from what a layer returned first."""
        return returned

    def type_vectors(self, descriptor: torch.nn.Module) -> torch.Tensor | None:  # noqa: ARG002
        """Return the learnt vector of every type, ntypes x dim; None if it has no such."""
        return None

    def edges(self, output: tuple[Any, ...], nlist: torch.Tensor) -> Edges | None:
        """Return the edge representations; None if it has no such.

        Parameters
        ----------
        output : tuple
            What the descriptor returned.
        nlist : torch.Tensor
            The neighbour list that it was given, nf x nloc x nnei; -1 for no neighbour.
        """
        values = output[2] if len(output) > 2 else None
        if values is None or values.dim() not in (FLAT, PADDED):
            return None
        present = nlist >= 0
        if values.dim() == PADDED:  # the nearest of the list, up to a cutoff of its own
            nlist = nlist[:, :, : values.shape[2]]
            present = (nlist >= 0) & (output[4].reshape(nlist.shape) > 0)
            values = values[present]
        if len(values) != int(present.sum()):
            raise RuntimeError(
                f"the descriptor has {len(values)} edges, its neighbour list {int(present.sum())}"
            )
        return Edges(values, nlist, present)
