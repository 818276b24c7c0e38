"""What any descriptor has to pass, and any that stands in for another.

A :class:`Question` is a descriptor's JSON and what its family has to answer about it. A
:class:`Case` is a descriptor's JSON and a function that puts a stand-in in place in a model, which
has to give the same numbers and the same file.
"""

from __future__ import annotations

import copy
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from deepmd.pt.model.model import get_model
from deepmd.pt.utils import env
from deepmd.pt.utils.nlist import extend_input_and_build_neighbor_list

from deepmd_mft.backbones.families import family_of, family_of_type, layer_of
from deepmd_mft.bridge.descriptors import watch_layer
from deepmd_mft.bridge.models import build_descriptor

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

TYPE_MAP = ["H", "C", "O"]
#: Largest difference, in units of the largest value, by precision of the descriptor.
TOLERANCE = {"float64": 1e-12, "float32": 1e-5}


@dataclass
class Question:
    """A descriptor, and what is true of it.

    ``lists`` are the keys of its neighbour lists, ``edge_list`` the place of the one that its edge
    representations go with, ``types`` whether it has a vector of every type.
    """

    descriptor: dict[str, Any]
    lists: tuple[str, ...]
    nlayers: int = 0
    types: bool = True
    edge_list: int | None = None

    @property
    def family(self) -> Any:
        return family_of_type(self.descriptor["type"])

    def build(self) -> Any:
        """Return the descriptor, with other values than the initial ones."""
        built = build_descriptor({**self.descriptor, "seed": 1}, TYPE_MAP).to(env.DEVICE).eval()
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in built.parameters():
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.add_(0.1 * noise.to(parameter))
        return built

    def frames(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return coordinates and types of two molecules, without neighbours near a cutoff."""
        generator = torch.Generator().manual_seed(7)
        grid = torch.cartesian_prod(*[torch.arange(2.0, dtype=torch.float64)] * 3)
        noise = torch.randn(2, 8, 3, generator=generator, dtype=torch.float64)
        atype = torch.randint(0, len(TYPE_MAP), (2, 8), generator=generator)
        return (1.6 * grid + 0.1 * noise).to(env.DEVICE), atype.to(env.DEVICE)

    def run(self, built: Any, coord: torch.Tensor, atype: torch.Tensor) -> tuple[Any, torch.Tensor]:
        """Return what the descriptor gives, and the neighbour list that it was given."""
        extended, types, mapping, nlist = extend_input_and_build_neighbor_list(
            coord, atype, built.get_rcut(), built.get_sel(), built.mixed_types(), None
        )
        with torch.no_grad():
            return built(extended, types, nlist, mapping), nlist


def assert_family_is_found(question: Question) -> None:
    """The JSON and what deepmd-kit builds from it lead to one family."""
    assert family_of(question.build()) is question.family


def assert_neighbour_lists(question: Question) -> None:
    """The lists have the keys they have in the JSON; the widest is the one that deepmd-kit uses."""
    lists = question.family.neighbour_lists(question.descriptor)
    assert tuple(one.sel_key for one in lists) == question.lists
    built = question.build()
    assert max(one.rcut for one in lists) == built.get_rcut()
    sel = lists[0].sel
    assert (sum(sel) if isinstance(sel, list) else sel) == built.get_nsel()


def assert_layers(question: Question) -> None:
    """Each layer is called once, in order, and returns a finite vector for every atom."""
    built = question.build()
    layers = question.family.layers(built)
    assert len(layers) == question.nlayers
    seen: list[tuple[int, torch.Tensor]] = []
    for number, layer in enumerate(layers):
        watch_layer(layer, lambda node, number=number: seen.append((number, node)))
    coord, atype = question.frames()
    output, _ = question.run(built, coord, atype)
    assert [number for number, _ in seen] == list(range(question.nlayers))
    for _, returned in seen:
        node = question.family.node(returned, len(coord))
        assert node.shape == (*atype.shape, output[0].shape[-1])
        assert torch.isfinite(node).all()
        assert node.std(dim=1).max() > 0


def assert_layer_of_parameters(question: Question) -> None:
    """A parameter is in the layer that its name says, in whatever it is part of."""
    built = question.build()
    layers = question.family.layers(built)
    inside = {id(p): number for number, layer in enumerate(layers) for p in layer.parameters()}
    for name, parameter in built.named_parameters():
        assert layer_of(name) == inside.get(id(parameter)), name
        assert layer_of(f"model.a.atomic_model.descriptor.{name}") == layer_of(name)


def assert_type_vectors(question: Question) -> None:
    """They are what the descriptor's own embedding gives for the types."""
    built = question.build()
    vectors = question.family.type_vectors(built)
    assert (vectors is not None) == question.types
    if vectors is not None:
        every = torch.arange(len(TYPE_MAP), device=env.DEVICE)
        torch.testing.assert_close(vectors, built.type_embedding(every).detach())


def assert_edges(question: Question) -> None:
    """There is one for every pair of atoms within the cutoff of the list they go with."""
    coord, atype = question.frames()
    built = question.build()
    output, nlist = question.run(built, coord, atype)
    edges = question.family.edges(output, nlist)
    if question.edge_list is None:
        assert edges is None
        return
    rcut = question.family.neighbour_lists(question.descriptor)[question.edge_list].rcut
    expected = (torch.cdist(coord, coord) < rcut).sum(-1) - 1
    assert edges is not None
    torch.testing.assert_close(edges.present.sum(-1), expected)
    assert len(edges.values) == int(expected.sum())
    assert torch.isfinite(edges.values).all()
    frame, centre, slot = torch.nonzero(edges.present, as_tuple=True)
    far = (coord[frame, centre] - coord[frame, edges.nlist[frame, centre, slot]]).norm(dim=-1)
    assert ((far > 0) & (far < rcut)).all()


def assert_symmetries(question: Question) -> None:
    """Turned, moved and permuted molecules have the same descriptor."""
    built = question.build()
    coord, atype = question.frames()
    before = question.run(built, coord, atype)[0][0]
    generator = torch.Generator().manual_seed(5)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))[0]
    order = torch.randperm(atype.shape[1], generator=generator)
    moved = coord[:, order] @ turn.to(coord) + 3.0
    after = question.run(built, moved, atype[:, order])[0][0]
    torch.testing.assert_close(after, before[:, order], rtol=1e-5, atol=1e-6)


@dataclass
class Case:
    """A descriptor, and frames that it is to be compared on."""

    descriptor: dict[str, Any]
    put_in_place: Callable[[nn.Module], None]
    periodic: bool = False
    natoms: int = 11

    def models(self) -> tuple[nn.Module, nn.Module]:
        """Return deepmd-kit's model, and the same with the stand-in."""
        net = {"neuron": [8, 8], "precision": self.descriptor["precision"], "seed": 1}
        params = {"type_map": TYPE_MAP, "descriptor": self.descriptor, "fitting_net": net}
        native = get_model(copy.deepcopy(params)).to(env.DEVICE)
        # Other values than the initial ones, most of which are equal for all columns.
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in native.parameters():
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.add_(0.1 * noise.to(parameter))
        ours = copy.deepcopy(native)
        self.put_in_place(ours)
        return native, ours

    def frames(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Return coordinates, types and cells of three frames: one padded, one with a lone atom."""
        generator = torch.Generator().manual_seed(7)
        coord = 6.0 * torch.rand(3, self.natoms, 3, generator=generator, dtype=torch.float64)
        atype = torch.randint(0, len(TYPE_MAP), (3, self.natoms), generator=generator)
        atype[0, -3:] = -1
        coord[1, 0] += 40.0
        box = None
        if self.periodic:
            box = 6.5 * torch.eye(3, dtype=torch.float64).reshape(1, 9).repeat(3, 1)
            box[1, 3] = 1.3
            box = box.to(env.DEVICE)
        return coord.to(env.DEVICE), atype.to(env.DEVICE), box


def assert_same_training(case: Case) -> None:
    """Energies, forces, virials, and the gradient of a loss on them, are deepmd-kit's."""
    native, ours = case.models()
    tolerance = TOLERANCE[case.descriptor["precision"]]
    expected, found = (_gradients(model, *case.frames()) for model in (native, ours))
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        _assert_close(value, found[name], tolerance, name)
    assert any(".layers." in name for name, value in expected.items() if value is not None)


def assert_same_single_backward(case: Case) -> None:
    """The gradient of the energies in the parameters is deepmd-kit's: a property has no forces."""
    native, ours = case.models()
    coord, atype, box = case.frames()
    for model in (native, ours):
        descriptor = _describe(model, coord, atype, box)
        torch.cos(torch.arange(descriptor.numel())).to(descriptor).dot(
            descriptor.reshape(-1)
        ).backward()
    for (name, expected), (_, found) in zip(
        native.named_parameters(), ours.named_parameters(), strict=True
    ):
        _assert_close(expected.grad, found.grad, TOLERANCE[case.descriptor["precision"]], name)


def assert_same_file(case: Case) -> None:
    """The state is deepmd-kit's by name and shape, and each takes the other's."""
    native, ours = case.models()
    state = ours.state_dict()
    assert {k: v.shape for k, v in native.state_dict().items()} == {
        k: v.shape for k, v in state.items()
    }
    for parameter in native.parameters():
        parameter.data.zero_()
    native.load_state_dict(state)
    expected = native(*case.frames())
    _assert_close(expected["energy"], ours(*case.frames())["energy"], 1e-5, "energy")
    assert native.serialize() is not None
    assert ours.serialize().keys() == native.serialize().keys()


def assert_freezes(case: Case) -> None:
    """deepmd-kit's own TorchScript of the trained state gives the stand-in's numbers."""
    native, ours = case.models()
    native.load_state_dict(ours.state_dict())
    # `dp --pt freeze` builds the model anew with this set, so that it can be scripted.
    use_jit, env.CUSTOM_OP_USE_JIT = env.CUSTOM_OP_USE_JIT, False
    try:
        scripted = get_model(
            copy.deepcopy(
                {
                    "type_map": TYPE_MAP,
                    "descriptor": case.descriptor,
                    "fitting_net": {
                        "neuron": [8, 8],
                        "precision": case.descriptor["precision"],
                        "seed": 1,
                    },
                }
            )
        )
    finally:
        env.CUSTOM_OP_USE_JIT = use_jit
    scripted.load_state_dict(ours.state_dict())
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(scripted), buffer)
    buffer.seek(0)
    frozen = torch.jit.load(buffer, map_location=env.DEVICE)
    expected, found = frozen(*case.frames()), ours(*case.frames())
    tolerance = TOLERANCE[case.descriptor["precision"]]
    for name in ("energy", "force"):
        _assert_close(expected[name], found[name], tolerance, name)


def _gradients(
    model: nn.Module, coord: torch.Tensor, atype: torch.Tensor, box: torch.Tensor | None
) -> dict[str, torch.Tensor | None]:
    output = model(coord.clone().requires_grad_(True), atype, box)
    force = output["force"]
    pattern = torch.cos(torch.arange(force.numel())).to(force).reshape(force.shape)
    loss = output["energy"].square().sum() + (force * pattern).sum() + force.square().sum()
    found = {name: output[name].detach() for name in ("energy", "force")}
    if box is not None:
        loss = loss + output["virial"].square().sum()
        found["virial"] = output["virial"].detach()
    loss.backward()
    return {**found, **{name: p.grad for name, p in model.named_parameters()}}


def _describe(
    model: nn.Module, coord: torch.Tensor, atype: torch.Tensor, box: torch.Tensor | None
) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    hook = model.get_descriptor().register_forward_hook(lambda _, __, out: seen.append(out[0]))
    model(coord, atype, box)
    hook.remove()
    return seen[0]


def _assert_close(
    expected: torch.Tensor | None, found: torch.Tensor | None, tolerance: float, name: str
) -> None:
    assert (expected is None) == (found is None), name
    if expected is None or found is None:
        return
    scale = float(expected.detach().abs().max())
    assert torch.isfinite(expected).all(), name
    assert float((expected - found).detach().abs().max()) <= tolerance * scale + 1e-30, name
