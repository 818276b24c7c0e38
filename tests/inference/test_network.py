"""One forward pass over many batches: in order, a few at a time, whichever thread does it."""

import numpy as np
import pytest
import torch
from ase.build import molecule

from deepmd_mft.inference.network import Network
from tests.helpers.descriptors import DPA1, DPA2, SE_E2_A
from tests.helpers.dp import DESCRIPTOR, TYPE_MAP
from tests.helpers.models import build_head, structure_set

NET = {"type": "mft_property", "property_name": "gap", "intensive": True}
MOLECULES = [molecule(name) for name in ("CH4", "H2O", "NH3", "C2H6", "CH3OH", "HF")]


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_a_few_batches_are_ahead(two_threads):
    """What is not asked for yet is not computed, but for a few batches."""
    network = Network(build_head(NET))
    done = []

    def forward(number):
        done.append(number)
        return number

    results = network.each([None] * 100, forward)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    assert len(done) < 20
    assert list(results) == list(range(3, 100))
    assert sorted(done) == list(range(100))


@pytest.mark.parametrize(
    "descriptor", [DESCRIPTOR, DPA2, DPA1, SE_E2_A], ids=lambda one: one["type"]
)
def test_batches_are_as_one_by_one(two_threads, descriptor):
    """Layers and edges of a batch are those of its own thread."""
    structures = structure_set(*MOLECULES * 8)
    network = Network(build_head(NET, descriptor))
    batches = structures.batches(TYPE_MAP, atoms=16)
    assert len(batches) > 10
    together = list(network.look(batches, lambda seen: seen, layers=True, edges=True))
    for batch, seen in zip(batches, together, strict=True):
        [alone] = network.look([batch], lambda one: one, layers=True, edges=True)
        np.testing.assert_array_equal(seen.rows, batch.rows)
        torch.testing.assert_close(seen.node, alone.node, rtol=0, atol=1e-12)
        assert len(seen.layers) == len(alone.layers)
        for one, other in zip(seen.layers, alone.layers, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
        assert (seen.edges is None) == (descriptor is SE_E2_A)
        if seen.edges is not None:
            torch.testing.assert_close(seen.edges.values, alone.edges.values, rtol=0, atol=1e-12)
            torch.testing.assert_close(seen.coord, alone.coord)


def test_nothing_stays_behind():
    """Layers and descriptor are left as they were, also where a batch cannot be computed."""
    network = Network(build_head(NET))
    batches = structure_set(*MOLECULES).batches(TYPE_MAP)

    def fail(_seen):
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        list(network.look(batches, fail, layers=True))
    layers = network.family.layers(network.descriptor)
    assert all("forward" not in vars(layer) for layer in layers)
    assert not network.descriptor._forward_hooks
