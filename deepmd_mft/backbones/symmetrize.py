"""DPA-3's symmetrization: sums of neighbours' features times their directions, for each atom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from deepmd_mft.backbones.rows import Rows


def project(
    vectors: torch.Tensor, table: torch.Tensor, rows: Rows, *, table_of_second: bool
) -> torch.Tensor:
    """Return :meth:`Rows.project`, differentiable twice.

    Parameters
    ----------
    vectors : torch.Tensor
        Of each edge, nedge x 3.
    table : torch.Tensor
        Features of each edge, nedge x dim, or with ``table_of_second`` of the atom at which it
        ends, natoms x dim.
    rows : Rows
        The edges.

    Returns
    -------
    torch.Tensor
        natoms x 3 x dim.
    """
    return _Project.apply(vectors, table, rows, table_of_second)


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        vectors: torch.Tensor,
        table: torch.Tensor,
        rows: Rows,
        of_second: bool,  # noqa: FBT001  (apply takes no keywords)
    ) -> torch.Tensor:
        ctx.save_for_backward(vectors, table)
        ctx.rows, ctx.of_second = rows, of_second
        return rows.project(vectors, table, table_of_second=of_second)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        vectors, table = ctx.saved_tensors
        found = _ProjectBackward.apply(
            vectors, table, grad, ctx.rows, ctx.of_second, ctx.needs_input_grad[0]
        )
        return (*found, None, None)


class _ProjectBackward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        vectors: torch.Tensor,
        table: torch.Tensor,
        grad: torch.Tensor,
        rows: Rows,
        of_second: bool,  # noqa: FBT001
        vectors_wanted: bool,  # noqa: FBT001
    ) -> Any:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(vectors, table, grad)
        ctx.rows, ctx.of_second = rows, of_second
        return (
            rows.dots(table, grad, table_of_second=of_second) if vectors_wanted else None,
            rows.spread(vectors, grad, table_of_second=of_second),
        )

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any, ct_vectors: torch.Tensor | None, ct_table: torch.Tensor | None
    ) -> Any:
        vectors, table, grad = ctx.saved_tensors
        rows, of_second = ctx.rows, ctx.of_second
        new_vectors = new_table = new_grad = None
        if ct_vectors is not None:
            new_grad = rows.project(ct_vectors, table, table_of_second=of_second)
            new_table = rows.spread(ct_vectors, grad, table_of_second=of_second)
        if ct_table is not None:
            through = rows.project(vectors, ct_table, table_of_second=of_second)
            new_grad = through if new_grad is None else new_grad.add_(through)
            new_vectors = rows.dots(ct_table, grad, table_of_second=of_second)
        return new_vectors, new_table, new_grad, None, None, None
