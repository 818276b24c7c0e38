"""A residual update by a dense layer, as one step of automatic differentiation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from deepmd_mft.bridge.autograd import is_wanted

if TYPE_CHECKING:
    from deepmd_mft.backbones.activations import Activation


def update(
    x: torch.Tensor,
    source: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    residual: torch.Tensor,
    function: Activation,
) -> torch.Tensor:
    r"""Return :math:`x + r f(s W + b)`, differentiable twice.

    Parameters
    ----------
    x : torch.Tensor
        nrow x dim.
    source : torch.Tensor
        nrow x source dim.
    weight, bias, residual : torch.Tensor
        source dim x dim, dim and dim.
    function : Activation
    """
    return _Update.apply(x, source, weight, bias, residual, function)[0]


class _Update(torch.autograd.Function):
    """As :mod:`.message`, it hands out what f keeps, to receive that part of its gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        source: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        residual: torch.Tensor,
        function: Activation,
    ) -> Any:
        ctx.set_materialize_grads(False)
        kept = function.keep(torch.addmm(bias, source, weight))
        ctx.save_for_backward(source, weight, residual, *kept)
        ctx.function = function
        return torch.addcmul(x, residual, function.value(kept)), kept[0]

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor | None, grad_pre: torch.Tensor | None) -> Any:
        source, weight, residual, *kept = ctx.saved_tensors
        if grad is None:
            grad = torch.zeros_like(kept[0])
        wanted = [is_wanted(ctx, number) for number in range(1, 5)]
        found = _UpdateBackward.apply(
            *(kept[0], source, weight, residual, grad, grad_pre),
            *(ctx.function, wanted, tuple(kept[1:])),
        )
        return (grad, *found, None)


class _UpdateBackward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        pre: torch.Tensor,
        source: torch.Tensor,
        weight: torch.Tensor,
        residual: torch.Tensor,
        grad: torch.Tensor,
        grad_pre: torch.Tensor | None,
        function: Activation,
        wanted: list[bool],
        more: tuple[torch.Tensor, ...],
    ) -> Any:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(weight, residual, grad, pre, *more)
        ctx.function = function
        value, slope = function.first((pre, *more))
        through = slope.mul_(grad).mul_(residual)
        if grad_pre is not None:
            through += grad_pre
        return (
            torch.mm(through, weight.t()) if wanted[0] else None,
            torch.mm(source.t(), through) if wanted[1] else None,
            through.sum(0) if wanted[2] else None,
            torch.mul(value, grad).sum(0) if wanted[3] else None,
        )

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any,
        ct_source: torch.Tensor | None,
        *ct_parameters: torch.Tensor | None,
    ) -> Any:
        refuse_second_derivatives(ct_parameters)
        if ct_source is None:
            return (None,) * 9
        weight, residual, grad, *kept = ctx.saved_tensors
        _, slope, curvature = ctx.function.second(tuple(kept))
        ct_value = torch.mm(ct_source, weight)  # of the gradient of p, so far
        grad_value = torch.mul(grad, residual)
        new_weight = torch.mm(ct_source.t(), torch.mul(slope, grad_value))
        new_pre = curvature.mul_(grad_value).mul_(ct_value)
        ct_value.mul_(slope)
        new_residual = torch.mul(ct_value, grad).sum(0)
        return (
            *(new_pre, None, new_weight, new_residual, ct_value.mul_(residual), None),
            *(None, None, None),
        )


def refuse_second_derivatives(cotangents: tuple[torch.Tensor | None, ...]) -> None:
    """Raise if a gradient in a parameter is to be differentiated again."""
    if any(cotangent is not None for cotangent in cotangents):
        raise RuntimeError(
            "the fast DPA-3 has no second derivatives in its parameters; set DP_MFT_FAST=0"
        )
