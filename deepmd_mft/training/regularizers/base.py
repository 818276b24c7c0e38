"""What all regularisers share: a weight, a term of the loss, the descriptor's output on demand.

How to add a regulariser
------------------------
1. Subclass :class:`Regularizer` in a file of its own and write ``value``.
2. Set ``needs_representation`` if it looks at what the descriptor makes of the batch.
3. List it in :mod:`deepmd_mft.training.regularizers` and its options in :mod:`deepmd_mft.schema`.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from deepmd_mft.training.losses.base import Batch


@dataclass
class Representation:
    """What the descriptor made of a batch, and what it was given.

    Attributes
    ----------
    node : torch.Tensor
        nf x nloc x ndim, with its gradient.
    arguments, keywords : tuple, dict
        The descriptor's inputs, for another descriptor to be asked the same.
    """

    node: torch.Tensor
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]


class Regularizer:
    """One more term of a loss.

    Parameters
    ----------
    weight : float
        What its value is multiplied by.
    """

    #: Its name in the JSON and its column in ``lcurve.out``.
    type = ""
    needs_representation = False

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def value(self, batch: Batch, seen: Representation | None) -> torch.Tensor:
        """Return the value for a batch, a scalar.

        Parameters
        ----------
        batch : Batch
        seen : Representation or None
            Given if ``needs_representation``.
        """
        raise NotImplementedError


@contextmanager
def watch_descriptor(model: Any) -> Iterator[list[Representation]]:
    """Collect what the descriptor of a model gives in the block."""
    seen: list[Representation] = []

    def collect(
        _module: Any, arguments: tuple[Any, ...], keywords: dict[str, Any], output: Any
    ) -> None:
        seen.append(Representation(output[0], arguments, keywords))

    hook = model.get_descriptor().register_forward_hook(collect, with_kwargs=True)
    try:
        yield seen
    finally:
        hook.remove()
