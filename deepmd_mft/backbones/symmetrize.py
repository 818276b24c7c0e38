"""DPA-3's symmetrization: sums of neighbours' features times their directions, for each atom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from deepmd_mft.backbones.rows import Rows


def project(vectors: torch.Tensor, table: torch.Tensor, rows: Rows) -> torch.Tensor:
    """Return :meth:`Rows.project`, differentiable twice.

    Parameters
    ----------
    vectors : torch.Tensor
        Of each edge, nedge x 3.
    table : torch.Tensor
        Features of each edge, nedge x dim.
    rows : Rows
        The edges.

    Returns
    -------
    torch.Tensor
        natoms x 3 x dim.
    """
    return _Project.apply(vectors, table, rows)


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vectors: torch.Tensor, table: torch.Tensor, rows: Rows) -> torch.Tensor:
        ctx.save_for_backward(vectors, table)
        ctx.rows = rows
        return rows.project(vectors, table)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        vectors, table = ctx.saved_tensors
        found = _ProjectBackward.apply(vectors, table, grad, ctx.rows, ctx.needs_input_grad[0])
        return (*found, None)


class _ProjectBackward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        vectors: torch.Tensor,
        table: torch.Tensor,
        grad: torch.Tensor,
        rows: Rows,
        vectors_wanted: bool,
    ) -> Any:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(vectors, table, grad)
        ctx.rows = rows
        return rows.dots(table, grad) if vectors_wanted else None, rows.spread(vectors, grad)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, ct_vectors: torch.Tensor | None, ct_table: torch.Tensor | None) -> Any:
        vectors, table, grad = ctx.saved_tensors
        rows = ctx.rows
        new_vectors = new_table = new_grad = None
        if ct_vectors is not None:
            new_grad = rows.project(ct_vectors, table)
            new_table = rows.spread(ct_vectors, grad)
        if ct_table is not None:
            through = rows.project(vectors, ct_table)
            new_grad = through if new_grad is None else new_grad.add_(through)
            new_vectors = rows.dots(ct_table, grad)
        return new_vectors, new_table, new_grad, None, None
