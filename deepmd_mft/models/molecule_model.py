"""What the models of molecules share: atomic masses, and no periodic cell.

No ``from __future__ import annotations`` here: TorchScript reads the annotations.
"""

from typing import Any

import numpy as np
import torch

from deepmd_mft.models.atomic_model import MFTAtomicModel
from deepmd_mft.models.geometry import relative_to_center_of_mass
from deepmd_mft.models.masses import masses_of
from deepmd_mft.models.mft_model import MFTModel


class MoleculeAtomicModel(MFTAtomicModel):
    """Per-atom outputs that count with their squared distances from the centre of mass."""

    def arrays_of_weights(self) -> list[str]:
        """List what :meth:`bias_weights` reads of a frame beside its types."""
        return ["coord"]

    def bias_weights(self, system: dict) -> np.ndarray:
        """Return the sum of |r_i - r_com|^2 over the atoms of each type, nframes x ntypes."""
        atype = system["atype"]
        coord = system["coord"].view(atype.shape[0], -1, 3)
        masses = torch.tensor(masses_of(self.type_map), dtype=coord.dtype, device=coord.device)
        relative = relative_to_center_of_mass(coord, atype, masses)
        squared = relative.square().sum(dim=-1)
        types = [(squared * (atype == i)).sum(dim=1) for i in range(len(self.type_map))]
        weights = torch.stack(types, dim=1).detach().cpu().numpy().astype(np.float64)
        weights[:, list(self.atom_exclude_types)] = 0
        return weights

    # TorchScript needs the annotation in the class that it compiles.
    exclude_types: list[int]


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

    @classmethod
    def atomic_model_class(cls) -> type[MFTAtomicModel]:
        """Return the class of the per-atom model."""
        return MoleculeAtomicModel

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
