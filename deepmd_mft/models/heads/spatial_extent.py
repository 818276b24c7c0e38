"""The head ``mft_spatial_extent``, for the electronic spatial extent <R^2> of molecules.

No ``from __future__ import annotations`` here: TorchScript reads the annotations.
"""

from typing import Any

import numpy as np
import torch
from deepmd.pt.model.task.fitting import Fitting

from deepmd_mft.models.geometry import relative_to_center_of_mass
from deepmd_mft.models.heads.base import MFTFittingNet, resolve_bias
from deepmd_mft.models.mft_model import register_head
from deepmd_mft.models.molecule_model import MoleculeModel
from deepmd_mft.models.statistics import OutputStatistics, fit_bias, fit_output_statistics


@Fitting.register("mft_spatial_extent")
class MFTSpatialExtentFittingNet(MFTFittingNet):
    """Per-atom weights x_i of ``sum_i x_i |r_i - r_com|^2``.

    The form that TorchMD-Net, JMP and GotenNet use for QM9's <R^2> (MFT, arXiv 2601.08486, D.2),
    with a bias of each element on x_i: about its number of electrons.

    Parameters
    ----------
    ntypes : int
        Number of elements.
    dim_descrpt : int
        Width of the descriptor.
    property_name : str
        Name of the property and of its label files (one column).
    bias : {"element", "mean", "none"}, optional
        Constant part of x_i, by least squares of the labels; ``element`` if left out.
    **kwargs
        Those of deepmd-kit's ``property`` net.
    """

    def __init__(
        self,
        ntypes: int,
        dim_descrpt: int,
        property_name: str,
        bias: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.bias = resolve_bias(bias)
        super().__init__(
            ntypes,
            dim_descrpt,
            property_names=[property_name],
            label_dims=[1],
            variables={property_name: 1},
            net_out_dim=1,
            intensive=[False],
            **kwargs,
        )

    def fit_statistics(
        self, number: int, labels: np.ndarray, counts: np.ndarray, weights: np.ndarray
    ) -> OutputStatistics:
        """Fit ``sum_z p(z) sum_{i of z} |r_i - r_com|^2`` to the labels."""
        return fit_output_statistics(
            labels,
            counts,
            weights,
            readout="sum",
            bias=self.bias,
            property_name=self.property_names[number],
        )

    def fit_shift(
        self, number: int, residuals: np.ndarray, counts: np.ndarray, weights: np.ndarray
    ) -> np.ndarray:
        """Fit the residuals like the labels."""
        del number
        return fit_bias(residuals, counts, weights, readout="sum", bias=self.bias)

    # TorchScript needs the annotation in the class that it compiles.
    exclude_types: list[int]


@register_head("mft_spatial_extent")
class SpatialExtentModel(MoleculeModel):
    """A model with the head ``mft_spatial_extent``, for molecules only."""

    def reduce(
        self, output: dict[str, torch.Tensor], coord: torch.Tensor, atype: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Sum x_i |r_i - r_com|^2: see :meth:`.MFTModel.reduce`."""
        name = self.property_names[0]
        relative = relative_to_center_of_mass(coord, atype, self.masses)
        atomic = output[name] * relative.square().sum(dim=-1, keepdim=True)
        return {name: atomic.sum(dim=1), "atom_" + name: atomic}
