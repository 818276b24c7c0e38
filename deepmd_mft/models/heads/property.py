"""The head ``mft_property``: scalars or vectors of a frame, from a readout over its atoms.

No ``from __future__ import annotations`` here: TorchScript reads the annotations.
"""

from typing import Any

import numpy as np
import torch
from deepmd.dpmodel import OutputVariableDef
from deepmd.pt.model.task.fitting import Fitting

from deepmd_mft.errors import UserError
from deepmd_mft.models.heads.base import MFTFittingNet, resolve_bias
from deepmd_mft.models.mft_model import MFTModel, register_head
from deepmd_mft.models.statistics import OutputStatistics, fit_bias, fit_output_statistics
from deepmd_mft.names import READOUTS

ATTENTION = "readout_attention"
VARIANCE = "readout_variance"


@Fitting.register("mft_property")
class MFTPropertyFittingNet(MFTFittingNet):
    """Per-atom outputs of properties, one multilayer perceptron for all elements.

    With descriptors of shape nf x nloc x ndim it gives nf x nloc x task_dim, which the model
    scales, shifts by the bias of each element, and reduces by the readout:
    ``y = R_i [scale * MLP(D_i) + p(Z_i)]`` (MFT, arXiv 2601.08486, Eq. 16).

    Parameters
    ----------
    ntypes : int
        Number of elements.
    dim_descrpt : int
        Width of the descriptor.
    property_name : str or list of str
        Name of the property and of its label files; several share the net.
    task_dim : int or list of int
        Components of each property.
    intensive : bool or list of bool
        Whether each property does not grow with the number of atoms.
    readout : {"mean", "sum", "max", "attention"}, optional
        Reduction over the atoms; follows ``intensive`` if left out.
    bias : {"element", "mean", "none"}, optional
        Constant part, fitted to the training labels (:mod:`deepmd_mft.models.statistics`);
        ``element`` if left out.
    predict_variance : bool
        Also predict a variance of each component, for the loss ``gaussian_nll``.
    distinguish_types : bool, optional
        deepmd-kit's name for ``bias``: True is ``element``, False is ``mean``.
    **kwargs
        Those of deepmd-kit's ``property`` net.

    Raises
    ------
    UserError
        If a name is deepmd-kit's own or stands twice, lists differ in length, or readout and
        ``intensive`` contradict each other.
    """

    def __init__(
        self,
        ntypes: int,
        dim_descrpt: int,
        property_name: str | list[str],
        task_dim: int | list[int] = 1,
        intensive: bool | list[bool] = False,
        readout: str | None = None,
        bias: str | None = None,
        predict_variance: bool = False,
        distinguish_types: bool | None = None,
        **kwargs: Any,
    ) -> None:
        names = [property_name] if isinstance(property_name, str) else list(property_name)
        dims = as_list(task_dim, len(names), "task_dim")
        intensives = as_list(intensive, len(names), "intensive")
        self.readouts = [
            resolve_readout(name, flag, readout)
            for name, flag in zip(names, intensives, strict=True)
        ]
        self.bias = resolve_bias(bias, distinguish_types=distinguish_types)
        self.predict_variance = predict_variance
        variables = dict(zip(names, dims, strict=True))
        if "attention" in self.readouts:
            variables[ATTENTION] = 1
        if predict_variance:
            variables[VARIANCE] = sum(dims)
        super().__init__(
            ntypes,
            dim_descrpt,
            property_names=names,
            label_dims=dims,
            variables=variables,
            net_out_dim=sum(variables.values()),
            intensive=intensives,
            **kwargs,
        )

    def fit_statistics(
        self, number: int, labels: np.ndarray, counts: np.ndarray, weights: np.ndarray
    ) -> OutputStatistics:
        """Fit bias and scale of one property: see :meth:`.MFTFittingNet.fit_statistics`."""
        return fit_output_statistics(
            labels,
            counts,
            weights,
            readout=self.readouts[number],
            bias=self.bias,
            property_name=self.property_names[number],
        )

    def fit_shift(
        self, number: int, residuals: np.ndarray, counts: np.ndarray, weights: np.ndarray
    ) -> np.ndarray:
        """Fit the residuals like the labels: see :meth:`.MFTFittingNet.fit_shift`."""
        return fit_bias(residuals, counts, weights, readout=self.readouts[number], bias=self.bias)

    def serialize(self) -> dict:
        """Serialize as deepmd-kit's ``property`` net, which computes the same numbers.

        The bias is a constant of the model once fitted, so that a converted model runs in every
        backend.

        Raises
        ------
        UserError
            For several properties, a variance, or a readout that deepmd-kit does not have.
        """
        if len(self.variable_names) > 1 or self.readouts[0] == "max":
            return super().serialize()
        return super(MFTFittingNet, self).serialize()

    # TorchScript needs the annotation in the class that it compiles.
    exclude_types: list[int]


def as_list(value: Any, length: int, key: str) -> list:
    """Return one value for each property.

    Raises
    ------
    UserError
        If a list has another length than ``property_name``.
    """
    if not isinstance(value, list):
        return [value] * length
    if len(value) != length:
        raise UserError(
            f"{key} has {len(value)} entries for {length} properties; give one each, or a single "
            "value for all"
        )
    return list(value)


def resolve_readout(name: str, intensive: bool, readout: str | None) -> str:
    """Return the readout of a property.

    Raises
    ------
    UserError
        If there is no such readout, or it contradicts ``intensive``.
    """
    if readout is None:
        return "mean" if intensive else "sum"
    if readout not in READOUTS:
        raise UserError(
            f"property '{name}': readout is '{readout}'; it must be one of {', '.join(READOUTS)}"
        )
    if intensive != (readout != "sum"):
        raise UserError(
            f"property '{name}': readout '{readout}' and intensive: {str(intensive).lower()} "
            "contradict each other; sum is for extensive properties, mean, max and attention are "
            "for intensive ones"
        )
    return readout


def largest(atomic: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the largest per-atom output of each frame; 0 for a frame without atoms.

    Parameters
    ----------
    atomic : torch.Tensor
        nf x nloc x dim
    mask : torch.Tensor
        nf x nloc; 0 marks padding.

    Returns
    -------
    torch.Tensor
        nf x dim
    """
    if atomic.shape[1] == 0:
        return atomic.sum(dim=1)
    value = atomic.masked_fill(mask.unsqueeze(-1) == 0, -float("inf")).amax(dim=1)
    return value.masked_fill(mask.sum(dim=1, keepdim=True) == 0, 0.0)


@register_head("mft_property")
class PropertyModel(MFTModel):
    """A model with the head ``mft_property``."""

    readouts: list[str]
    predict_variance: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        net = self.atomic_model.fitting_net
        self.readouts = net.readouts
        self.predict_variance = net.predict_variance

    def translated_output_def(self) -> dict[str, OutputVariableDef]:
        """Return the definition of everything that ``forward`` gives, variances among it."""
        defined = super().translated_output_def()
        if self.predict_variance:
            for name, dim in zip(self.property_names, self.property_dims, strict=True):
                key = f"{name}_variance"
                defined[key] = OutputVariableDef(key, [dim], atomic=False)
        return defined

    def reduce(
        self, output: dict[str, torch.Tensor], coord: torch.Tensor, atype: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Make the properties of frames from per-atom outputs: see :meth:`.MFTModel.reduce`.

        A frame without atoms has the value 0 with every readout, as deepmd-kit's energy has.
        """
        mask = output["mask"]
        natoms = torch.clamp(mask.sum(dim=1, keepdim=True), min=1)
        named: dict[str, torch.Tensor] = {}
        start = 0
        for number, name in enumerate(self.property_names):
            atomic = output[name]
            if self.readouts[number] == "max":
                named[name] = largest(atomic, mask)
            elif self.readouts[number] == "attention":
                # not -inf, whose softmax over a frame without atoms is NaN
                score = output["readout_attention"].masked_fill(mask.unsqueeze(-1) == 0, -1e30)
                atomic = torch.softmax(score, dim=1) * atomic
                named[name] = atomic.sum(dim=1)
            elif self.readouts[number] == "mean":
                total = atomic.to(output[name + "_redu"].dtype).sum(dim=1)
                named[name] = total / natoms
            else:
                named[name] = output[name + "_redu"]  # deepmd-kit's own sum, in float64
            named["atom_" + name] = atomic
            if self.predict_variance:
                end = start + atomic.shape[-1]
                raw = output["readout_variance"][:, :, start:end].sum(dim=1) / natoms
                scale = self.label_scale(name)
                if self.readouts[number] == "sum":
                    scale = scale * natoms
                softplus = torch.nn.functional.softplus(raw)
                named[name + "_variance"] = scale**2 * (softplus + 1e-6)
                start = end
        return named
