"""The head ``mft_dipole_norm``, for the dipole moment mu of molecules.

No ``from __future__ import annotations`` here: TorchScript reads the annotations.
"""

from typing import Any

import numpy as np
import torch
from deepmd.pt.model.task.fitting import Fitting
from deepmd.pt.utils import env

from deepmd_mft.errors import UserError
from deepmd_mft.models.geometry import relative_to_center_of_mass
from deepmd_mft.models.heads.base import MFTFittingNet
from deepmd_mft.models.mft_model import register_head
from deepmd_mft.models.molecule_model import MoleculeModel
from deepmd_mft.models.statistics import OutputStatistics, fit_output_statistics


@Fitting.register("mft_dipole_norm")
class MFTDipoleNormFittingNet(MFTFittingNet):
    """Per-atom dipole vectors and charges, for ``mu = |sum_i d_i + q_i (r_i - r_com)|``.

    The vectors are combinations of the descriptor's equivariant vectors,
    ``d_i = sum_m c_im rot_mat_im`` (deepmd-kit's dipole fitting; MFT, arXiv 2601.08486, D.2); the
    charges are scalars (as in PaiNN and TorchMD-Net). A norm has no bias.

    Parameters
    ----------
    ntypes : int
        Number of elements.
    dim_descrpt : int
        Width of the descriptor.
    property_name : str
        Name of the property and of its label files (one column).
    embedding_width : int
        Number of equivariant vectors of the descriptor, set by the model.
    vectors, charges : bool
        Whether each part is there; at least one is needed.
    **kwargs
        Those of deepmd-kit's ``property`` net.

    Raises
    ------
    UserError
        If both parts are off.
    """

    def __init__(
        self,
        ntypes: int,
        dim_descrpt: int,
        property_name: str,
        embedding_width: int = 0,
        vectors: bool = True,
        charges: bool = True,
        **kwargs: Any,
    ) -> None:
        if not (vectors or charges):
            raise UserError(
                f"property '{property_name}': vectors and charges are both off; a dipole needs one"
            )
        self.nvectors = embedding_width if vectors else 0
        self.ncharges = 1 if charges else 0
        super().__init__(
            ntypes,
            dim_descrpt,
            property_names=[property_name],
            label_dims=[1],
            variables={property_name: 4},
            net_out_dim=self.nvectors + self.ncharges,
            intensive=[True],
            **kwargs,
        )

    def property_dims(self) -> list[int]:
        """Return 1: the norm."""
        return [1]

    def split(self, out: torch.Tensor, gr: torch.Tensor | None) -> dict[str, torch.Tensor]:
        """Return vectors (3) and charges (1) side by side, nf x nloc x 4."""
        nf, nloc = out.shape[0], out.shape[1]
        vector = torch.zeros([nf, nloc, 3], dtype=out.dtype, device=out.device)
        charge = torch.zeros([nf, nloc, 1], dtype=out.dtype, device=out.device)
        if self.nvectors > 0:
            if gr is None:
                raise RuntimeError("mft_dipole_norm: the descriptor gives no rot_mat")
            frames = gr.view(nf, nloc, self.nvectors, 3).to(env.GLOBAL_PT_FLOAT_PRECISION)
            vector = (out[:, :, : self.nvectors].unsqueeze(-1) * frames).sum(dim=2)
        if self.ncharges > 0:
            charge = out[:, :, self.nvectors :]
        return {self.property_names[0]: torch.cat([vector, charge], dim=-1)}

    def fit_statistics(
        self, number: int, labels: np.ndarray, counts: np.ndarray, weights: np.ndarray
    ) -> OutputStatistics:
        """Return no bias, and the scales of vectors and charges.

        Independent vectors, or charges, of these sizes make a dipole of the labels' size. With the
        labels' rms for both, an untrained net is wrong by ten times the labels, and few labels do
        not mend that.
        """
        statistics = fit_output_statistics(
            labels,
            counts,
            weights,
            readout="mean",
            bias="none",
            property_name=self.property_names[number],
        )
        distance = np.sqrt(weights.sum(axis=1).mean())  # weights are sums of |r_i - r_com|^2
        vector = statistics.scale / np.sqrt(counts.sum(axis=1).mean())
        charge = statistics.scale / distance if distance > 0 else vector  # zero of single atoms
        scale = np.concatenate([vector, vector, vector, charge])
        return OutputStatistics(np.zeros((counts.shape[1], 4)), scale, statistics.unseen)

    def fit_shift(
        self, number: int, residuals: np.ndarray, counts: np.ndarray, weights: np.ndarray
    ) -> np.ndarray:
        """Return zero: a norm has no bias."""
        del number, residuals, weights
        return np.zeros((counts.shape[1], 4))

    # TorchScript needs the annotation in the class that it compiles.
    exclude_types: list[int]


@register_head("mft_dipole_norm")
class DipoleNormModel(MoleculeModel):
    """A model with the head ``mft_dipole_norm``, for molecules only."""

    @classmethod
    def check_descriptor(cls, descriptor: torch.nn.Module, fitting_net: dict[str, Any]) -> None:
        """Raise UserError if the head uses vectors and the descriptor gives none."""
        if fitting_net.get("vectors", True) and not gives_rot_mat(descriptor):
            raise UserError(
                f"mft_dipole_norm needs the equivariant vectors (rot_mat) of the descriptor, and "
                f"{type(descriptor).__name__} gives none; take another descriptor (dpa3, dpa2, "
                "se_e2_a, se_atten), or set vectors: false to use charges only"
            )

    @torch.jit.export
    def get_task_dim(self) -> int:
        """Return 1: the norm."""
        return 1

    def label_scale(self, name: str) -> torch.Tensor:
        """Return the scale of the vectors: see :meth:`.MFTModel.label_scale`."""
        return self.atomic_model.out_std[0, 0, :1]

    def reduce(
        self, output: dict[str, torch.Tensor], coord: torch.Tensor, atype: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Return the norm, and per atom its part along the dipole: see :meth:`.MFTModel.reduce`."""
        name = self.property_names[0]
        relative = relative_to_center_of_mass(coord, atype, self.masses)
        atomic = output[name][:, :, :3] + output[name][:, :, 3:] * relative
        dipole = atomic.sum(dim=1, keepdim=True)
        # the gradient of a norm at zero is not finite
        norm = torch.sqrt(dipole.square().sum(dim=-1) + 1e-24)
        along = (atomic * dipole).sum(dim=-1, keepdim=True) / norm.unsqueeze(-1)
        return {name: norm, "atom_" + name: along}


def gives_rot_mat(descriptor: torch.nn.Module) -> bool:
    """Return whether a descriptor gives equivariant vectors, by asking it about two atoms."""
    nlist = torch.full((1, 2, sum(descriptor.get_sel())), -1, device=env.DEVICE)
    nlist[0, 0, 0], nlist[0, 1, 0] = 1, 0
    coord = torch.tensor([[[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]]).to(
        device=env.DEVICE, dtype=env.GLOBAL_PT_FLOAT_PRECISION
    )
    atype = torch.zeros((1, 2), dtype=torch.int64, device=env.DEVICE)
    mapping = torch.arange(2, device=env.DEVICE).unsqueeze(0)
    with torch.no_grad():
        _, rot_mat, *_ = descriptor(coord.view(1, -1), atype, nlist, mapping=mapping)
    return rot_mat is not None and rot_mat.numel() > 0  # DPA-4 returns an empty one
