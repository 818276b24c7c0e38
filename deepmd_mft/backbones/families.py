"""deepmd-kit's descriptors, as :class:`~deepmd_mft.backbones.family.Family` asks about them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from deepmd_mft.backbones.family import Family, NeighbourList
from deepmd_mft.bridge import descriptors as bridge

if TYPE_CHECKING:
    import torch


class _Embedded(Family):
    """One with a type embedding."""

    def type_vectors(self, descriptor: torch.nn.Module) -> torch.Tensor | None:
        return bridge.type_embedding(descriptor)


class DPA3(_Embedded):
    """Edges and angles have lists of their own; the JSON says ``repflow``."""

    types = ("dpa3",)
    lists = (("repflow", "e_rcut", "e_sel"), ("repflow", "a_rcut", "a_sel"))
    layers_in = "repflows.layers"

    def prefix(self, section: str) -> str:  # noqa: ARG002  (the keys tell them apart)
        """Return nothing: the keys differ."""
        return ""


class DPA2(_Embedded):
    """``repinit`` sees farther than ``repformer``, whose layers pass the messages."""

    types = ("dpa2",)
    lists = (("repinit", "rcut", "nsel"), ("repformer", "rcut", "nsel"))
    layers_in = "repformers.layers"

    def neighbour_lists(self, params: dict[str, Any]) -> list[NeighbourList]:
        """Return those of ``repinit``, of its three-body part if there is one, and of the rest."""
        found = super().neighbour_lists(params)
        part = params.get("repinit", {})
        if part.get("use_three_body"):
            keys = ("repinit/three_body_rcut", "repinit/three_body_sel")
            rcut, sel = part["three_body_rcut"], part["three_body_sel"]
            found.insert(1, NeighbourList(*keys, float(rcut), sel))
        return found


class DPA1(_Embedded):
    """A type embedding without messages: attention is over the neighbours of one atom."""

    types = ("dpa1", "se_atten", "se_atten_v2", "se_e3_tebd")


class DPA4(Family):
    """Equivariant; no edge representation is returned."""

    types = ("dpa4", "DPA4", "SeZM", "sezm")
    layers_in = "blocks"

    def node(self, returned: torch.Tensor, nframes: int) -> torch.Tensor:
        """Return the scalar part, of all degrees that a layer returned."""
        return returned[:, 0, 0].reshape(nframes, -1, returned.shape[-1])

    def type_vectors(self, descriptor: torch.nn.Module) -> torch.Tensor | None:
        """Return the rows of its table."""
        return bridge.type_table(descriptor)


class SeE2A(Family):
    """One embedding net for each pair of types, no type embedding."""

    types = ("se_e2_a", "se_a")


FAMILIES: tuple[Family, ...] = (DPA3(), DPA2(), DPA1(), DPA4(), SeE2A())
#: Any other descriptor: what deepmd-kit's interface says of all.
OTHER = Family()
#: What the layers are in, beside other parts of the descriptor.
CONTAINERS = frozenset(f.layers_in.rpartition(".")[0] for f in FAMILIES) - {""}

_LAYER = re.compile(
    rf"(?:^|\.)(?:{'|'.join(re.escape(f.layers_in) for f in FAMILIES if f.layers_in)})\.(\d+)\."
)


def family_of_type(name: str) -> Family:
    """Return the family of a descriptor by the ``type`` in its JSON."""
    return next((family for family in FAMILIES if name in family.types), OTHER)


def family_of(descriptor: Any) -> Family:
    """Return the family of a descriptor that is built."""
    for family in FAMILIES:
        if any(bridge.is_of_type(descriptor, name) for name in family.types):
            return family
    return OTHER


def layer_of(name: str) -> int | None:
    """Return the message-passing layer that a parameter is in, from 0; None if it is in none.

    Parameters
    ----------
    name : str
        Its name in the descriptor, or in a model or training that has the descriptor.
    """
    found = _LAYER.search(name)
    return int(found[1]) if found else None
