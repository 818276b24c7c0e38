"""Sums over, and gathers of, rows that belong to owners: neighbours of atoms, angles of edges.

All of it is ``embedding_bag``, which sums the rows of a table, weighted or not, in one pass: on a
CPU two to ten times quicker than ``index_add`` and ``segment_reduce`` (benchmarks/speed.py).
Nothing here is differentiable by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch


def bag(
    table: torch.Tensor,
    index: torch.Tensor,
    offsets: torch.Tensor,
    weight: torch.Tensor | None = None,
) -> torch.Tensor:
    """Sum rows of a table: row b of the result is that of ``index[offsets[b]:offsets[b + 1]]``.

    Parameters
    ----------
    table : torch.Tensor
        n x dim.
    index : torch.Tensor
        Rows of the table, of any number.
    offsets : torch.Tensor
        Where each bag starts, and at the end where the last one ends: nbag + 1.
    weight : torch.Tensor, optional
        Of each entry of ``index``.

    Returns
    -------
    torch.Tensor
        nbag x dim.
    """
    if not len(index):
        return table.new_zeros(len(offsets) - 1, table.shape[1])
    return torch.embedding_bag(table, index, offsets, False, 0, False, weight, True)[0]


@dataclass
class Rows:
    """Rows with two owners each, sorted by the first.

    Edges have the atom at which they start and the one at which they end; angles have two edges.

    Attributes
    ----------
    first, second : torch.Tensor
        The owners of each row, nrow.
    first_offsets : torch.Tensor
        Where the rows of each first owner start, nfirst + 1.
    by_second : torch.Tensor
        The rows sorted by the second owner, nrow.
    second_offsets : torch.Tensor
        Where those of each second owner start in ``by_second``, nsecond + 1.
    """

    first: torch.Tensor
    second: torch.Tensor
    first_offsets: torch.Tensor
    by_second: torch.Tensor
    second_offsets: torch.Tensor

    @cached_property
    def rows(self) -> torch.Tensor:
        """The number of each row."""
        return torch.arange(len(self.first), device=self.first.device)

    @cached_property
    def _pairs(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The two entries of each row in a table that holds first and second in turn."""
        index = torch.stack([2 * self.first, 2 * self.second + 1], 1).reshape(-1)
        return index, torch.arange(0, len(index) + 1, 2, device=index.device)

    @cached_property
    def _both(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The rows of each owner as a first, then as a second one."""
        owner = torch.cat([2 * self.first, 2 * self.second[self.by_second] + 1])
        order = torch.argsort(owner, stable=True)
        counts = torch.stack([self.first_offsets.diff(), self.second_offsets.diff()], 1)
        offsets = torch.nn.functional.pad(torch.cumsum(counts.reshape(-1), 0), (1, 0))
        return torch.cat([self.rows, self.by_second])[order], offsets

    @cached_property
    def _spread(self) -> tuple[torch.Tensor, torch.Tensor]:
        axes = torch.arange(3, device=self.first.device)
        by_row = (3 * self.first[:, None] + axes).reshape(-1)
        return by_row, torch.arange(0, len(by_row) + 1, 3, device=by_row.device)

    def add_both(self, table: torch.Tensor) -> torch.Tensor:
        """Return the sum of what its two owners hold for each row.

        Parameters
        ----------
        table : torch.Tensor
            nowner x (2 dim): what an owner adds to rows as the first one, and as the second one.

        Returns
        -------
        torch.Tensor
            nrow x dim.
        """
        return bag(table.view(2 * len(table), table.shape[1] // 2), *self._pairs)

    def sum_both(self, values: torch.Tensor) -> torch.Tensor:
        """Return the transpose of :meth:`add_both`, nowner x (2 dim)."""
        index, offsets = self._both
        return bag(values, index, offsets).view((len(offsets) - 1) // 2, 2 * values.shape[1])

    def sum_first(self, values: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
        """Sum rows, weighted or not, for each first owner, nfirst x dim."""
        return bag(values, self.rows, self.first_offsets, weight)

    def project(self, vectors: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """Sum over each first owner's rows: vector times table row.

        Parameters
        ----------
        vectors : torch.Tensor
            nrow x 3.
        table : torch.Tensor
            nrow x dim.

        Returns
        -------
        torch.Tensor
            nfirst x 3 x dim.
        """
        columns = vectors.t().contiguous()
        return torch.stack([self.sum_first(table, column) for column in columns], dim=1)

    def spread(self, vectors: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
        """Return the transpose of :meth:`project` in the table: its gradient."""
        return bag(grad.reshape(-1, grad.shape[-1]), *self._spread, vectors.reshape(-1))

    def dots(self, table: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
        """Return the transpose of :meth:`project` in the vectors, nrow x 3: their gradient."""
        # index_select copies row by row unless the table has two axes
        of_first = grad.reshape(len(grad), -1).index_select(0, self.first)
        return of_first.view(len(table), 3, table.shape[1]).mul_(table[:, None]).sum(-1)
