r"""The message of DPA-3, on edges and on angles, as one step of automatic differentiation.

For a row a (an edge, or an angle) with the owners o and k,

.. math:: h_a = f(p_a), \quad p_a = x_a W + u_o + v_k, \qquad
          m_o = \sum_{a \in o} w_a h_a^{(1)}, \qquad x'_a = x_a + r \, h_a^{(2)},

where the columns of h are split into those that are summed for the owner (1) and those that update
the row itself (2). deepmd-kit evaluates the two parts apart, each with a gather and a pass over
memory for every term. Here both share them; of all intermediate values only what f needs is kept,
and the backward pass and its own backward pass (forces are trained with it) are written out.

What f keeps of p is handed out as one more result, so that the second pass can say what it adds to
the gradient of p, and the products with W and the sums over owners are done once for both passes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from deepmd_mft.backbones.update import refuse_second_derivatives
from deepmd_mft.bridge.autograd import is_wanted

if TYPE_CHECKING:
    from deepmd_mft.backbones.activations import Activation
    from deepmd_mft.backbones.rows import Rows


def message(
    x: torch.Tensor,
    weight: torch.Tensor,
    owners: torch.Tensor,
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
    owners : torch.Tensor
        What the owners add to the argument of the activation function, bias included, as first
        and as second ones: nowner x (2 columns).
    scale : torch.Tensor
        Weight of each row in the message, nrow.
    residual : torch.Tensor or None
        Factor of the update, dim; None if the rows are not needed any more.
    rows : Rows
    function : Activation

    Returns
    -------
    tuple
        The messages, nowner x message dim, and the updated rows, nrow x dim, or None.
    """
    summed, updated, _ = _Message.apply(x, weight, owners, scale, residual, rows, function)
    return summed, updated


class _Message(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        owners: torch.Tensor,
        scale: torch.Tensor,
        residual: torch.Tensor | None,
        rows: Rows,
        function: Activation,
    ) -> Any:
        ctx.set_materialize_grads(False)
        kept = function.keep(rows.add_both(owners).addmm_(x, weight))
        value = function.value(kept)
        # Summing all columns and cutting is quicker than cutting first, which copies.
        summed = rows.sum_first(value, scale)
        updated = None
        if residual is not None:
            dim = weight.shape[1] - len(residual)
            summed = summed[:, :dim].contiguous()
            updated = torch.addcmul(x, residual, value[:, dim:])
        ctx.save_for_backward(x, weight, scale, residual, *kept)
        ctx.rows, ctx.function, ctx.shape = rows, function, summed.shape
        return summed, updated, kept[0]

    @staticmethod
    def backward(
        ctx: Any,
        grad_summed: torch.Tensor | None,
        grad_updated: torch.Tensor | None,
        grad_pre: torch.Tensor | None,
    ) -> Any:
        x, weight, scale, residual, *kept = ctx.saved_tensors
        if grad_summed is None:
            grad_summed = x.new_zeros(ctx.shape)
        if grad_updated is None and residual is not None:
            grad_updated = torch.zeros_like(x)
        wanted = [is_wanted(ctx, number) for number in range(5)]
        found = _MessageBackward.apply(
            *(kept[0], x, weight, scale, residual, grad_summed, grad_updated, grad_pre),
            *(ctx.rows, ctx.function, wanted, tuple(kept[1:])),
        )
        return (*found, None, None)


class _MessageBackward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        pre: torch.Tensor,
        x: torch.Tensor,
        weight: torch.Tensor,
        scale: torch.Tensor,
        residual: torch.Tensor | None,
        grad_summed: torch.Tensor,
        grad_updated: torch.Tensor | None,
        grad_pre: torch.Tensor | None,
        rows: Rows,
        function: Activation,
        wanted: list[bool],
        more: tuple[torch.Tensor, ...],
    ) -> Any:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(weight, scale, residual, grad_summed, grad_updated, pre, *more)
        ctx.rows, ctx.function = rows, function
        dim = grad_summed.shape[1]
        value, slope = function.first((pre, *more))
        sent = grad_summed.index_select(0, rows.first)
        grad_scale = torch.mul(value[:, :dim], sent).sum(1) if wanted[3] else None
        grad_residual = None
        if residual is not None and wanted[4]:
            grad_residual = torch.mul(value[:, dim:], grad_updated).sum(0)
        through = slope.mul_(_grad_value(sent, scale, grad_updated, residual))
        if grad_pre is not None:
            through += grad_pre
        own = None
        if wanted[0] and grad_updated is None:
            own = torch.mm(through, weight.t())
        elif wanted[0]:
            own = torch.addmm(grad_updated, through, weight.t())
        return (
            own,
            torch.mm(x.t(), through) if wanted[1] else None,
            rows.sum_both(through) if wanted[2] else None,
            grad_scale,
            grad_residual,
        )

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any,
        ct_x: torch.Tensor | None,
        ct_weight: torch.Tensor | None,
        ct_owners: torch.Tensor | None,
        ct_scale: torch.Tensor | None,
        ct_residual: torch.Tensor | None,
    ) -> Any:
        refuse_second_derivatives((ct_weight, ct_residual))
        weight, scale, residual, grad_summed, grad_updated, *kept = ctx.saved_tensors
        rows, dim = ctx.rows, grad_summed.shape[1]
        value, slope, curvature = ctx.function.second(tuple(kept))
        sent = grad_summed.index_select(0, rows.first)
        grad_value = _grad_value(sent, scale, grad_updated, residual)

        # The cotangent of the gradient of p, which is grad_value * f'.
        if ct_owners is None:
            ct_pre = torch.zeros_like(value)
        else:
            ct_pre = rows.add_both(ct_owners.contiguous())
        new_weight = None
        if ct_x is not None:
            ct_pre.addmm_(ct_x, weight)
            new_weight = torch.mm(ct_x.t(), torch.mul(slope, grad_value))
        new_pre = grad_value.mul_(curvature).mul_(ct_pre)
        ct_value = ct_pre.mul_(slope)

        new_scale = torch.mul(ct_value[:, :dim], sent).sum(1)
        new_summed = rows.sum_first(ct_value, scale)
        if ct_scale is not None:  # grad_scale is value * sent, summed over columns
            new_summed += rows.sum_first(value, ct_scale)
            new_pre[:, :dim].addcmul_(slope[:, :dim].mul_(sent), ct_scale[:, None])
        new_residual = new_updated = None
        if residual is not None:
            new_residual = torch.mul(ct_value[:, dim:], grad_updated).sum(0)
            new_updated = torch.mul(ct_value[:, dim:], residual)
            if ct_x is not None:
                new_updated += ct_x
        return (
            *(new_pre, None, new_weight, new_scale, new_residual),
            *(new_summed[:, :dim], new_updated, None),
            *(None, None, None, None),
        )


def _grad_value(
    sent: torch.Tensor,
    scale: torch.Tensor,
    grad_updated: torch.Tensor | None,
    residual: torch.Tensor | None,
) -> torch.Tensor:
    """Return the gradient of h, nrow x columns."""
    if grad_updated is None or residual is None:
        return sent * scale[:, None]
    dim = sent.shape[1]
    grad = sent.new_empty(len(sent), dim + grad_updated.shape[1])
    torch.mul(sent, scale[:, None], out=grad[:, :dim])
    torch.mul(grad_updated, residual, out=grad[:, dim:])
    return grad
