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
        index = torch.stack([self.first, self.second + len(self.first_offsets) - 1], 1).reshape(-1)
        return index, torch.arange(0, len(index) + 1, 2, device=index.device)

    @cached_property
    def _spread(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        axes = torch.arange(3, device=self.first.device)
        by_row = (3 * self.first[:, None] + axes).reshape(-1)
        by_second = (3 * self.first[self.by_second, None] + axes).reshape(-1)
        return by_row, by_second, torch.arange(0, len(by_row) + 1, 3, device=by_row.device)

    def add_both(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Return the sum of what its two owners hold for each row, nrow x dim."""
        return bag(torch.cat([first, second]), *self._pairs)

    def sum_first(self, values: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
        """Sum rows, weighted or not, for each first owner, nfirst x dim."""
        return bag(values, self.rows, self.first_offsets, weight)

    def sum_second(self, values: torch.Tensor) -> torch.Tensor:
        """Sum rows for each second owner, nsecond x dim."""
        return bag(values, self.by_second, self.second_offsets)

    def project(
        self, vectors: torch.Tensor, table: torch.Tensor, *, table_of_second: bool
    ) -> torch.Tensor:
        """Sum over each first owner's rows: vector times table row.

        Parameters
        ----------
        vectors : torch.Tensor
            nrow x 3.
        table : torch.Tensor
            nrow x dim, or nsecond x dim with ``table_of_second``.

        Returns
        -------
        torch.Tensor
            nfirst x 3 x dim.
        """
        index = self.second if table_of_second else self.rows
        columns = vectors.t().contiguous()
        return torch.stack(
            [bag(table, index, self.first_offsets, column) for column in columns], dim=1
        )

    def spread(
        self, vectors: torch.Tensor, grad: torch.Tensor, *, table_of_second: bool
    ) -> torch.Tensor:
        """Return the transpose of :meth:`project` in the table: its gradient."""
        by_row, by_second, offsets = self._spread
        flat = grad.reshape(-1, grad.shape[-1])
        if table_of_second:
            ordered = vectors[self.by_second].reshape(-1)
            return bag(flat, by_second, 3 * self.second_offsets, ordered)
        return bag(flat, by_row, offsets, vectors.reshape(-1))

    def dots(
        self, table: torch.Tensor, grad: torch.Tensor, *, table_of_second: bool
    ) -> torch.Tensor:
        """Return the transpose of :meth:`project` in the vectors, nrow x 3: their gradient."""
        rows = table.index_select(0, self.second) if table_of_second else table
        return grad.index_select(0, self.first).mul_(rows[:, None]).sum(-1)
