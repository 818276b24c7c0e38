"""What every head of this package shares: its properties, their labels and output statistics.

No ``from __future__ import annotations`` here: TorchScript reads the annotations.

How to add a head
-----------------
1. Subclass :class:`MFTFittingNet` in a file of its own, ``models/heads/<name>.py``, with
   ``@Fitting.register("mft_<name>")`` above it; say in ``variables`` what the net gives per atom.
2. Subclass :class:`.MFTModel` beside it (:class:`.MoleculeModel` where a cell makes no sense), with
   ``@register_head("mft_<name>")`` above it, and write the readout of a frame and its statistics.
3. Import the net in ``models/__init__.py``.
4. List its options in ``schema/heads.py`` and the function in ``HEADS`` there.
5. Add it to ``tests/models/test_heads.py`` and ``tests/integration/test_heads.py``.
"""

from typing import Any

import numpy as np
import torch
from deepmd.dpmodel import FittingOutputDef, OutputVariableDef
from deepmd.pt.model.task.property import PropertyFittingNet
from deepmd.pt.utils import env

from deepmd_mft.errors import UserError
from deepmd_mft.models.statistics import OutputStatistics
from deepmd_mft.names import BIASES, RESERVED_NAMES


class MFTFittingNet(PropertyFittingNet):
    """A fitting net with one or more outputs per atom, each with its own bias and scale.

    A subclass says in ``variables`` what its multilayer perceptron gives per atom; the model of
    the head (:mod:`.mft_model`) makes the properties of a frame from it. To deepmd-kit it is a
    property fitting net whose name and dimension are those of the first property.

    Parameters
    ----------
    ntypes : int
        Number of elements.
    dim_descrpt : int
        Width of the descriptor.
    property_names : list of str
        The properties; their label files have these names.
    label_dims : list of int
        Columns of each label file.
    variables : dict of int
        Per-atom outputs, width by name. The first ``len(property_names)`` are the properties'
        own; others help a readout and have neither bias nor scale.
    net_out_dim : int
        Width of the multilayer perceptron's output.
    intensive : list of bool
        Whether each property does not grow with the number of atoms.
    **kwargs
        Those of deepmd-kit's ``property`` net.

    Raises
    ------
    UserError
        If a name is deepmd-kit's own or stands twice.
    """

    def __init__(
        self,
        ntypes: int,
        dim_descrpt: int,
        *,
        property_names: list[str],
        label_dims: list[int],
        variables: dict[str, int],
        net_out_dim: int,
        intensive: list[bool],
        **kwargs: Any,
    ) -> None:
        check_names(property_names)
        self.property_names = property_names
        self.label_dims = label_dims
        self.variable_names = list(variables)
        self.variable_dims = list(variables.values())
        self.net_out_dim = net_out_dim
        self.is_intensive = intensive
        super().__init__(
            ntypes,
            dim_descrpt,
            property_name=property_names[0],
            task_dim=self.variable_dims[0],
            intensive=intensive[0],
            distinguish_types=True,  # the bias is stored per element, whatever its kind
            **kwargs,
        )

    def _net_out_dim(self) -> int:
        return self.net_out_dim

    def output_def(self) -> FittingOutputDef:
        """Return the definition of the per-atom outputs."""
        nproperties = len(self.property_names)
        return FittingOutputDef(
            [
                OutputVariableDef(
                    name,
                    [dim],
                    reducible=number < nproperties,
                    r_differentiable=False,
                    c_differentiable=False,
                    intensive=number < nproperties and self.is_intensive[number],
                )
                for number, (name, dim) in enumerate(
                    zip(self.variable_names, self.variable_dims, strict=True)
                )
            ]
        )

    def property_dims(self) -> list[int]:
        """Return the width of each property in the model's output."""
        return self.variable_dims[: len(self.property_names)]

    def forward(
        self,
        descriptor: torch.Tensor,
        atype: torch.Tensor,
        gr: torch.Tensor | None = None,
        g2: torch.Tensor | None = None,
        h2: torch.Tensor | None = None,
        fparam: torch.Tensor | None = None,
        aparam: torch.Tensor | None = None,
        return_atomic_feature: bool = False,
    ) -> dict[str, torch.Tensor]:
        """Return the per-atom outputs.

        Parameters
        ----------
        descriptor : torch.Tensor
            nf x nloc x ndim
        atype : torch.Tensor
            nf x nloc
        gr, g2, h2, fparam, aparam : torch.Tensor, optional
            What the descriptor and the user give besides; see deepmd-kit's fitting nets.
        return_atomic_feature : bool
            Also return the last hidden layer as ``atomic_feature``.

        Returns
        -------
        dict of torch.Tensor
            nf x nloc x dim for each variable, before bias and scale.
        """
        net = self._forward_common(
            descriptor,
            atype,
            gr,
            g2,
            h2,
            fparam,
            aparam,
            return_atomic_feature=return_atomic_feature,
        )
        result = self.split(net[self.var_name].to(env.GLOBAL_PT_FLOAT_PRECISION), gr)
        if return_atomic_feature:
            result["atomic_feature"] = net["atomic_feature"]
        return result

    def split(self, out: torch.Tensor, gr: torch.Tensor | None) -> dict[str, torch.Tensor]:
        """Cut the output of the multilayer perceptron (nf x nloc x net_out_dim) into variables."""
        result: dict[str, torch.Tensor] = {}
        start = 0
        for number, name in enumerate(self.variable_names):
            end = start + self.variable_dims[number]
            result[name] = out[:, :, start:end]
            start = end
        return result

    def fit_statistics(
        self, number: int, labels: np.ndarray, counts: np.ndarray, weights: np.ndarray
    ) -> OutputStatistics:
        """Fit bias and scale of one property to the training labels.

        Parameters
        ----------
        number : int
            Index of the property.
        labels : np.ndarray
            nframes x label dimension, NaN where missing.
        counts : np.ndarray
            Atoms of each type, nframes x ntypes.
        weights : np.ndarray
            How much the bias of each type counts in the prediction for a frame, nframes x ntypes:
            the counts, unless the head weighs its atoms.

        Returns
        -------
        OutputStatistics
        """
        raise NotImplementedError

    def fit_shift(
        self, number: int, residuals: np.ndarray, counts: np.ndarray, weights: np.ndarray
    ) -> np.ndarray:
        """Return what to add to the bias (ntypes x dim), from labels minus predictions."""
        raise NotImplementedError

    def serialize(self) -> dict:
        """Refuse: deepmd-kit's other backends do not have these heads.

        Raises
        ------
        UserError
            Always; a head that deepmd-kit has under another name overrides this.
        """
        raise UserError(
            f"property '{self.var_name}': a head of type {type(self).__name__} cannot be "
            "converted to another backend; freeze the model with `dp --pt freeze` instead"
        )

    # TorchScript needs the annotation in the class that it compiles.
    exclude_types: list[int]


def resolve_bias(bias: str | None, *, distinguish_types: bool | None = None) -> str:
    """Return the kind of bias of a head.

    Parameters
    ----------
    bias : {"element", "mean", "none"}, optional
        ``element`` if left out.
    distinguish_types : bool, optional
        deepmd-kit's name for it: True is ``element``, False is ``mean``.

    Raises
    ------
    UserError
        If there is no such kind, or the two contradict each other.
    """
    if bias is not None and bias not in BIASES:
        raise UserError(f"bias is '{bias}'; it must be one of {', '.join(BIASES)}")
    if distinguish_types is None:
        return bias or "element"
    native = "element" if distinguish_types else "mean"
    if bias not in (None, native):
        raise UserError(
            f"bias '{bias}' and distinguish_types: {str(distinguish_types).lower()} (bias "
            f"'{native}') contradict each other; remove distinguish_types"
        )
    return native


def check_names(names: list[str]) -> None:
    """Refuse names of properties that deepmd-kit uses itself, and the same name twice.

    Raises
    ------
    UserError
    """
    for name in names:
        if name in RESERVED_NAMES:
            raise UserError(
                f"property_name '{name}' is taken by deepmd-kit; choose another name "
                f"and rename the label files (taken: {', '.join(RESERVED_NAMES)})"
            )
    if len(set(names)) < len(names):
        raise UserError(f"property_name has the same property twice: {', '.join(names)}")
