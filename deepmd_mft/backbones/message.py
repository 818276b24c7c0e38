r"""The message of DPA-3, on edges and on angles, as one step of automatic differentiation.

For a row a (an edge, or an angle) with the owners o and k,

.. math:: h_a = f(x_a W + u_o + v_k), \qquad
          m_o = \sum_{a \in o} w_a h_a^{(1)}, \qquad x'_a = x_a + r \, h_a^{(2)},

where the columns of h are split into those that are summed for the owner (1) and those that update
the row itself (2). deepmd-kit evaluates the two parts apart, each with a gather and a pass over
memory for every term. Here both share them; of all intermediate values only the argument of f is
kept, and the backward pass and its own backward pass (forces are trained with it) are written out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from deepmd_mft.bridge.autograd import is_wanted

if TYPE_CHECKING:
    from deepmd_mft.backbones.activations import Activation
    from deepmd_mft.backbones.rows import Rows


def message(
    x: torch.Tensor,
    weight: torch.Tensor,
    first: torch.Tensor,
    second: torch.Tensor,
    scale: torch.Tensor,
    residual: torch.Tensor | None,
    rows: Rows,
    function: Activation,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the message to each first owner, and the updated rows.

    Parameters
    ----------
    x : torch.Tensor
        The rows' own features, nrow x dim.
    weight : torch.Tensor
        dim x (message dim + dim), or dim x message dim without ``residual``.
    first, second : torch.Tensor
        What the owners add to the argument of the activation function, bias included:
        nfirst x columns and nsecond x columns.
    scale : torch.Tensor
        Weight of each row in the message, nrow.
    residual : torch.Tensor or None
        Factor of the update, dim; None if the rows are not needed any more.
    rows : Rows
    function : Activation

    Returns
    -------
    tuple
        The messages, nfirst x message dim, and the updated rows, nrow x dim, or None.
    """
    if residual is None:
        return _Message.apply(x, weight, first, second, scale, None, rows, function), None
    return _Message.apply(x, weight, first, second, scale, residual, rows, function)


def _columns(weight: torch.Tensor, residual: torch.Tensor | None) -> int:
    return weight.shape[1] - (0 if residual is None else len(residual))


class _Message(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        first: torch.Tensor,
        second: torch.Tensor,
        scale: torch.Tensor,
        residual: torch.Tensor | None,
        rows: Rows,
        function: Activation,
    ) -> Any:
        ctx.set_materialize_grads(False)
        dim = _columns(weight, residual)
        kept = function.keep(rows.add_both(first, second).addmm_(x, weight))
        value = function.value(kept)
        # Summing all columns and cutting is quicker than cutting first, which copies.
        summed = rows.sum_first(value, scale)
        ctx.save_for_backward(x, weight, first, second, scale, residual, *kept)
        ctx.rows, ctx.function = rows, function
        if residual is None:
            return summed
        return summed[:, :dim].contiguous(), torch.addcmul(x, residual, value[:, dim:])

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor | None) -> Any:
        x, weight, first, second, scale, residual, *kept = ctx.saved_tensors
        if all(grad is None for grad in grads):
            return (None,) * 8
        grad_message, grad_x = grads if len(grads) == 2 else (grads[0], None)
        if grad_message is None:
            grad_message = x.new_zeros(len(first), _columns(weight, residual))
        if grad_x is None and residual is not None:
            grad_x = torch.zeros_like(x)
        wanted = [is_wanted(ctx, number) for number in range(6)]
        found = _MessageBackward.apply(
            *(x, weight, first, second, scale, residual, grad_message, grad_x),
            *(ctx.rows, ctx.function, wanted, tuple(kept)),
        )
        return (*found, None, None)


class _MessageBackward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        first: torch.Tensor,
        second: torch.Tensor,
        scale: torch.Tensor,
        residual: torch.Tensor | None,
        grad_message: torch.Tensor,
        grad_x: torch.Tensor | None,
        rows: Rows,
        function: Activation,
        wanted: list[bool],
        kept: tuple[torch.Tensor, ...],
    ) -> Any:
        del first, second
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, weight, scale, residual, grad_message, grad_x, *kept)
        ctx.rows, ctx.function = rows, function
        dim = grad_message.shape[1]
        value, slope = function.first(kept)
        sent = grad_message.index_select(0, rows.first)
        grad_scale = torch.mul(value[:, :dim], sent).sum(1) if wanted[4] else None
        grad_residual = None
        if residual is not None and wanted[5]:
            grad_residual = torch.mul(value[:, dim:], grad_x).sum(0)
        grad_pre = slope.mul_(_grad_value(sent, scale, grad_x, residual))
        own = None
        if wanted[0]:
            own = (
                torch.mm(grad_pre, weight.t())
                if grad_x is None
                else torch.addmm(grad_x, grad_pre, weight.t())
            )
        return (
            own,
            torch.mm(x.t(), grad_pre) if wanted[1] else None,
            rows.sum_first(grad_pre) if wanted[2] else None,
            rows.sum_second(grad_pre) if wanted[3] else None,
            grad_scale,
            grad_residual,
        )

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any,
        ct_x: torch.Tensor | None,
        ct_weight: torch.Tensor | None,
        ct_first: torch.Tensor | None,
        ct_second: torch.Tensor | None,
        ct_scale: torch.Tensor | None,
        ct_residual: torch.Tensor | None,
    ) -> Any:
        if ct_weight is not None or ct_residual is not None:
            raise RuntimeError(
                "the fast DPA-3 has no second derivatives in its parameters; set DP_MFT_FAST=0"
            )
        x, weight, scale, residual, grad_message, grad_x, *kept = ctx.saved_tensors
        rows, dim = ctx.rows, grad_message.shape[1]
        value, slope, curvature = ctx.function.second(tuple(kept))
        sent = grad_message.index_select(0, rows.first)
        grad_value = _grad_value(sent, scale, grad_x, residual)

        # cotangent of the gradient of the argument of f
        ct_pre = rows.add_both(
            _or_zeros(ct_first, grad_message, weight), _or_zeros(ct_second, None, weight, rows)
        )
        if ct_x is not None:
            ct_pre.addmm_(ct_x, weight)
        new_weight = None
        if ct_x is not None:
            new_weight = torch.mm(ct_x.t(), slope * grad_value)

        # grad_pre = grad_value * f'
        grad_value.mul_(curvature).mul_(ct_pre)
        ct_value = ct_pre.mul_(slope)
        new_scale = torch.mul(ct_value[:, :dim], sent).sum(1)
        new_message = rows.sum_first(ct_value, scale)
        if ct_scale is not None:  # grad_scale = value * sent, summed over columns
            new_message += rows.sum_first(value, ct_scale)
            through = torch.mul(sent, slope[:, :dim])
            grad_value[:, :dim].addcmul_(through, ct_scale[:, None])
        new_residual = new_grad_x = None
        if residual is not None:
            new_residual = torch.mul(ct_value[:, dim:], grad_x).sum(0)
            new_grad_x = torch.mul(ct_value[:, dim:], residual)
            if ct_x is not None:
                new_grad_x += ct_x
        own_weight = torch.mm(x.t(), grad_value)
        return (
            torch.mm(grad_value, weight.t()),
            own_weight if new_weight is None else own_weight.add_(new_weight),
            rows.sum_first(grad_value),
            rows.sum_second(grad_value),
            new_scale,
            new_residual,
            new_message[:, :dim],
            new_grad_x,
            *(None, None, None, None),
        )


def _grad_value(
    sent: torch.Tensor,
    scale: torch.Tensor,
    grad_x: torch.Tensor | None,
    residual: torch.Tensor | None,
) -> torch.Tensor:
    """Return the gradient of h, nrow x columns."""
    if grad_x is None or residual is None:
        return sent * scale[:, None]
    dim = sent.shape[1]
    grad = sent.new_empty(len(sent), dim + grad_x.shape[1])
    torch.mul(sent, scale[:, None], out=grad[:, :dim])
    torch.mul(grad_x, residual, out=grad[:, dim:])
    return grad


def _or_zeros(
    cotangent: torch.Tensor | None,
    like: torch.Tensor | None,
    weight: torch.Tensor,
    rows: Rows | None = None,
) -> torch.Tensor:
    if cotangent is not None:
        return cotangent
    number = len(like) if like is not None else len(rows.second_offsets) - 1
    return weight.new_zeros(number, weight.shape[1])
