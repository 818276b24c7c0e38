"""What torch's autograd engine is about to do."""

from __future__ import annotations

from typing import Any

import torch

_will_execute = getattr(torch._C, "_will_engine_execute_node", None)


def is_wanted(ctx: Any, number: int) -> bool:
    """Whether the backward pass that is running needs the gradient of an input.

    ``ctx.needs_input_grad`` says only whether the input is differentiable. Forces are derivatives
    in the coordinates alone: the gradients of the weights, a third of the work, are not wanted
    then.

    Parameters
    ----------
    ctx : FunctionCtx
        Of a function whose tensors come before its other arguments.
    number : int
        The number of the input among those that are tensors.
    """
    nodes = ctx.next_functions
    node = nodes[number][0] if number < len(nodes) else None
    if node is None:
        return False
    if _will_execute is None:
        return True
    try:
        return bool(_will_execute(node))
    except RuntimeError:  # a leaf that torch.autograd.grad was asked for
        return True
