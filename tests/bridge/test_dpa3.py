"""deepmd_mft.bridge.dpa3 and .autograd: what the faster DPA-3 is built on."""

import inspect

import torch
from deepmd.pt.model.descriptor import repflows

from deepmd_mft.bridge.autograd import is_wanted
from deepmd_mft.bridge.dpa3 import DescrptBlockRepflows, DescrptDPA3, RepFlowLayer, deepmd_version


def test_the_release_that_was_compared_with():
    # Fails with a new deepmd-kit: run tests/backbones, then add it to backbones.switch.TESTED.
    assert deepmd_version == "3.2.0"


def test_blocks_are_used_as_they_were():
    assert "self.repflows(" in inspect.getsource(DescrptDPA3.forward)
    arguments = list(inspect.signature(DescrptBlockRepflows.forward).parameters)
    assert arguments == [
        *("self", "nlist", "extended_coord", "extended_atype"),
        *("extended_atype_embd", "mapping", "comm_dict"),
    ]
    assert repflows.RepFlowLayer is RepFlowLayer


class Watched(torch.autograd.Function):
    """Multiplies two tensors, and notes whose gradients are wanted."""

    seen: list[list[bool]]

    @staticmethod
    def forward(ctx, x, y):
        ctx.save_for_backward(x, y)
        return x * y

    @staticmethod
    def backward(ctx, grad):
        x, y = ctx.saved_tensors
        Watched.seen.append([is_wanted(ctx, 0), is_wanted(ctx, 1), is_wanted(ctx, 2)])
        return grad * y, grad * x


def test_gradients_that_are_not_asked_for_are_not_wanted():
    x, y = (torch.tensor(value, requires_grad=True) for value in (2.0, 3.0))
    Watched.seen = []
    product = Watched.apply(2 * x, 3 * y)
    torch.autograd.grad(product, [x], retain_graph=True)
    torch.autograd.grad(product, [y], retain_graph=True)
    product.backward(retain_graph=True)
    assert Watched.seen == [[True, False, False], [False, True, False], [True, True, False]]


def test_a_leaf_that_is_asked_for_is_wanted():
    x, y = (torch.tensor(value, requires_grad=True) for value in (2.0, 3.0))
    Watched.seen = []
    torch.autograd.grad(Watched.apply(x, y), [x])
    assert Watched.seen == [[True, False, False]]
