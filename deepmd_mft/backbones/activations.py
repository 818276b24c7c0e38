"""Activation functions with their first and second derivatives, in few passes over memory.

deepmd-kit 3.2.0 evaluates ``silut`` in a dozen un-fused passes, with tanh on every element. Here
silu is torch's fused one, and tanh is evaluated only where it is used. On a CPU, numpy's tanh and
comparisons are several times quicker than torch's (SIMD), with an error below one unit in the last
place in both.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

#: From this many threads on, torch's parallel tanh beats numpy's, which has one thread.
MANY_THREADS = 8


class Activation:
    """An activation function f, and what is kept of its argument for the backward passes."""

    def keep(self, pre: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return what is kept of the argument (which is consumed), as a tuple of tensors."""
        raise NotImplementedError

    def value(self, kept: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Return f; not to be changed in place."""
        raise NotImplementedError

    def first(self, kept: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return f and f'."""
        raise NotImplementedError

    def second(
        self, kept: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return f, f' and f''."""
        raise NotImplementedError

    def __call__(self, pre: torch.Tensor) -> torch.Tensor:
        """Apply f, differentiable twice."""
        return _Activate.apply(pre, self)


class Tanh(Activation):
    """The hyperbolic tangent; its value is kept."""

    def keep(self, pre: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return tanh."""
        return (tanh(pre),)

    def value(self, kept: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Return f."""
        return kept[0]

    def first(self, kept: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return f and f'."""
        (value,) = kept
        return value, _one_minus_square(value)

    def second(
        self, kept: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return f, f' and f''."""
        value, slope = self.first(kept)
        return value, slope, torch.mul(value, slope).mul_(-2)


class Silu(Activation):
    """x / (1 + exp(-x)); its argument and sigmoid are kept."""

    def keep(self, pre: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return what is kept of the argument."""
        return pre, torch.sigmoid(pre)

    def value(self, kept: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Return f."""
        return torch.mul(kept[0], kept[1])

    def first(self, kept: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return f and f'."""
        pre, sigmoid = kept[:2]
        value = torch.mul(pre, sigmoid)
        # The slope is value times one minus sigmoid, plus sigmoid.
        return value, torch.addcmul(sigmoid, torch.rsub(sigmoid, 1), value)

    def second(
        self, kept: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return f, f' and f''."""
        pre, sigmoid = kept[:2]
        value = torch.mul(pre, sigmoid)
        rest = torch.rsub(sigmoid, 1)
        slope = torch.addcmul(sigmoid, rest, value)
        # The curvature is sigmoid times one minus sigmoid, times 2 + pre - 2 value.
        curvature = torch.sub(pre, value, alpha=2).add_(2).mul_(rest.mul_(sigmoid))
        return value, slope, curvature


class Silut(Silu):
    """silu below a threshold, above it a tanh that goes on with the same value and slope.

    Parameters
    ----------
    threshold : float
        From here on tanh(slope * (x - threshold)) + silu(threshold).
    """

    def __init__(self, threshold: float) -> None:
        sigmoid = 1 / (1 + math.exp(-threshold))
        self.threshold = threshold
        self.slope = sigmoid + threshold * sigmoid * (1 - sigmoid)
        self.offset = threshold * sigmoid

    def keep(self, pre: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return what is kept of the argument."""
        return (*super().keep(pre), at_least(pre, self.threshold))

    def value(self, kept: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Return f."""
        value = super().value(kept)
        self._replace(kept, value)
        return value

    def first(self, kept: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return f and f'."""
        value, slope = super().first(kept)
        self._replace(kept, value, slope)
        return value, slope

    def second(
        self, kept: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return f, f' and f''."""
        value, slope, curvature = super().second(kept)
        self._replace(kept, value, slope, curvature)
        return value, slope, curvature

    def _replace(
        self,
        kept: tuple[torch.Tensor, ...],
        value: torch.Tensor,
        slope: torch.Tensor | None = None,
        curvature: torch.Tensor | None = None,
    ) -> None:
        """Put tanh and its derivatives where the argument reaches the threshold."""
        pre, _, where = kept
        if not len(where):
            return
        tail = tanh((pre.view(-1).take(where) - self.threshold).mul_(self.slope))
        value.view(-1).index_copy_(0, where, tail + self.offset)
        if slope is not None:
            tail_slope = _one_minus_square(tail).mul_(self.slope)
            slope.view(-1).index_copy_(0, where, tail_slope)
            if curvature is not None:
                tail_slope.mul_(tail).mul_(-2 * self.slope)
                curvature.view(-1).index_copy_(0, where, tail_slope)


def is_covered(name: str) -> bool:
    """Whether deepmd-kit's activation function of this name is among those above."""
    return name.lower().partition(":")[0] in ("tanh", "silu", "silut", "custom_silu")


def activation(name: str) -> Activation:
    """Return the activation function of a deepmd-kit name, one that :func:`is_covered`."""
    kind, _, threshold = name.lower().partition(":")
    if kind == "tanh":
        return Tanh()
    return Silu() if kind == "silu" else Silut(float(threshold or 3.0))


def tanh(pre: torch.Tensor) -> torch.Tensor:
    """Return tanh of a tensor that is not differentiated."""
    if pre.device.type != "cpu" or torch.get_num_threads() >= MANY_THREADS:
        return torch.tanh(pre)
    out = torch.empty_like(pre)
    np.tanh(pre.detach().numpy(), out=out.numpy())
    return out


def at_least(pre: torch.Tensor, threshold: float) -> torch.Tensor:
    """Return the places in the flattened tensor whose value reaches a threshold."""
    if pre.device.type != "cpu":
        return torch.nonzero(pre.reshape(-1) >= threshold).squeeze(1)
    flat = pre.detach().numpy().reshape(-1)
    return torch.from_numpy(np.flatnonzero(flat >= flat.dtype.type(threshold)))


def _one_minus_square(value: torch.Tensor) -> torch.Tensor:
    return torch.mul(value, value).neg_().add_(1)


class _Activate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pre: torch.Tensor, function: Activation) -> torch.Tensor:
        kept = function.keep(pre.contiguous())
        ctx.save_for_backward(*kept, pre)
        ctx.function = function
        value = function.value(kept)
        return value.clone() if value is kept[0] else value

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        *kept, pre = ctx.saved_tensors
        return _ActivateBackward.apply(pre, grad, ctx.function, tuple(kept)), None


class _ActivateBackward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        pre: torch.Tensor,
        grad: torch.Tensor,
        function: Activation,
        kept: tuple[torch.Tensor, ...],
    ) -> torch.Tensor:
        ctx.save_for_backward(grad, *kept)
        ctx.function = function
        del pre
        return function.first(kept)[1].mul_(grad)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, cotangent: torch.Tensor) -> Any:
        grad, *kept = ctx.saved_tensors
        _, slope, curvature = ctx.function.second(tuple(kept))
        return curvature.mul_(grad).mul_(cotangent), slope.mul_(cotangent), None, None
