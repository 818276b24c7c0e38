"""What the models of molecules share: atomic masses, and no periodic cell.

No ``from __future__ import annotations`` here: TorchScript reads the annotations.
"""

from typing import Any

import torch

from deepmd_mft.models.masses import masses_of
from deepmd_mft.models.mft_model import MFTModel


class MoleculeModel(MFTModel):
    """A model whose property depends on the positions relative to the centre of mass."""

    masses: torch.Tensor
    head: str

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        bias = self.atomic_model.out_bias
        masses = torch.tensor(
            masses_of(self.atomic_model.type_map), dtype=bias.dtype, device=bias.device
        )
        self.register_buffer("masses", masses, persistent=False)
        self.head = type(self).__name__

    def check_box(self, box: torch.Tensor | None) -> None:
        """Raise if there is a periodic cell."""
        if box is not None:
            raise RuntimeError(
                self.head
                + " is defined for molecules: its value depends on the origin in a periodic cell. "
                + "Give systems without a cell (a file `nopbc` in each), or use another head."
            )

    def check_ghosts(self, ghost_types: torch.Tensor) -> None:
        """Raise if there are periodic images, or atoms that another process holds."""
        if bool((ghost_types >= 0).any()):
            raise RuntimeError(
                self.head
                + " is defined for molecules: its value depends on the origin in a periodic cell, "
                + "and on all atoms at once. Use it without a cell and on one process, or use "
                + "another head."
            )
