"""Edge dropout of the sped-up DPA-3."""

import copy
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from deepmd_mft.backbones import switch
from deepmd_mft.backbones.edge_dropout import dropping_edges
from deepmd_mft.errors import UserError
from tests.helpers.models import build_head, build_property, frame

NET = {"type": "mft_property", "property_name": "gap", "intensive": True}


@pytest.fixture(scope="module")
def model():
    found = build_property()
    switch.speed_up_models([found])
    return found.train()


def messages(model, share):
    """The first layer's edges, as weights: how much of each message comes through."""
    coord, atype, _ = frame()
    block = model.get_descriptor().repflows
    seen = []
    graph = block._graph

    def watched(*args):
        seen.append(graph(*args))
        return seen[-1]

    block._graph = watched
    try:
        with dropping_edges(model, share):
            model(coord.clone().requires_grad_(), atype)
    finally:
        del block._graph
    return seen[0]


def test_the_mean_over_masks_is_the_undropped_message(model):
    whole = messages(model, 0.0)
    share, draws = 0.3, 300
    edges = torch.stack([messages(model, share).edge_scale.detach() for _ in range(draws)])
    kept = edges[0] > 0
    torch.testing.assert_close(edges[0][kept] * (1 - share), whole.edge_scale.detach()[kept])
    # the mean of draws masks, each with variance p / (1 - p)
    error = np.sqrt(share / (1 - share) / draws)
    ratio = (edges.mean(0) / whole.edge_scale.detach()).numpy()
    assert np.abs(ratio - 1).max() < 5 * error
    assert abs((edges == 0).double().mean() - share) < 0.02


def test_an_angle_falls_with_either_of_its_edges(model):
    whole, dropped = messages(model, 0.0), messages(model, 0.5)
    near = dropped.edge_scale[dropped.near] > 0
    alive = near[dropped.angles.first] & near[dropped.angles.second]
    assert 0 < alive.double().mean() < 0.6
    weight = torch.where(dropped.angles.first == dropped.angles.second, 2.0, 4.0)
    torch.testing.assert_close(dropped.angle_scale, weight * whole.angle_scale * alive)
    draws = [messages(model, 0.2).angle_scale.detach() for _ in range(300)]
    some = whole.angle_scale > 0  # not at the cutoff
    ratio = (torch.stack(draws).mean(0) / whole.angle_scale.detach())[some]
    # of two edges the variance is (1 / (1 - p)^2 - 1) / draws
    assert (ratio - 1).abs().max() < 6 * ((1 / 0.8**2 - 1) / 300) ** 0.5


def test_only_while_training(model):
    coord, atype, _ = frame()
    with torch.no_grad():
        plain = model(coord, atype)["gap"]
        with dropping_edges(model, 0.5):
            assert not torch.equal(model(coord, atype)["gap"], plain)
        assert torch.equal(model(coord, atype)["gap"], plain)  # outside of the context
        model.eval()
        with dropping_edges(model, 0.5):
            assert torch.equal(model(coord, atype)["gap"], plain)
    model.train()


def test_a_share_of_zero_changes_no_bit():
    def trained(edge_dropout):
        found = build_property().train()
        switch.speed_up_models([found])
        coord, atype, _ = frame()
        optimizer = torch.optim.AdamW(found.parameters(), lr=1e-2)
        for _ in range(3):
            with nullcontext() if edge_dropout is None else dropping_edges(found, edge_dropout):
                loss = found(coord, atype)["gap"].square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return list(found.parameters())

    plain, zero, dropped = trained(None), trained(0.0), trained(0.3)
    assert all(torch.equal(one, other) for one, other in zip(plain, zero, strict=True))
    assert not all(torch.equal(one, other) for one, other in zip(plain, dropped, strict=True))


def test_the_masks_follow_the_seed_of_the_training():
    def masks(seed):
        found = build_property().train()
        switch.speed_up_models([found])
        torch.manual_seed(seed)
        return torch.stack([messages(found, 0.3).edge_scale.detach() for _ in range(2)])

    first = masks(1)
    assert torch.equal(first, masks(1))
    assert not torch.equal(first, masks(2))
    assert not torch.equal(first[0], first[1])


def test_forces_are_the_gradient_under_one_mask():
    from deepmd.pt.model.model import get_model

    from tests.helpers.dp import DESCRIPTOR, ENERGY_NET, TYPE_MAP

    params = {"type_map": TYPE_MAP, "descriptor": DESCRIPTOR, "fitting_net": ENERGY_NET}
    energy = get_model(copy.deepcopy(params)).double()
    switch.speed_up_models([energy])
    energy.train()
    coord, atype, _ = frame()
    block = energy.get_descriptor().repflows

    def run(at):
        block.masks = torch.Generator("cpu").manual_seed(3)  # the same mask every time
        with dropping_edges(energy, 0.4):
            return energy(at, atype)

    force = run(coord)["force"].detach().reshape(-1)
    step = 1e-4
    for i in (0, 7, 20):
        moved = [coord.clone(), coord.clone()]
        moved[0][0, i] += step
        moved[1][0, i] -= step
        up, down = (float(run(one)["energy"]) for one in moved)
        assert force[i].item() == pytest.approx(-(up - down) / (2 * step), abs=1e-5)


def test_another_descriptor_is_refused():
    from tests.helpers.descriptors import DPA1

    found = build_head(NET, DPA1).train()
    with pytest.raises(UserError, match="needs the faster DPA-3"), dropping_edges(found, 0.1):
        pass
