"""The fitting net ``mft_property``: deepmd-kit's property net with a readout and a bias of choice.

No ``from __future__ import annotations`` here: TorchScript reads the annotations.
"""

from typing import Any

from deepmd.pt.model.task.fitting import Fitting
from deepmd.pt.model.task.property import PropertyFittingNet

from deepmd_mft.errors import UserError
from deepmd_mft.names import BIASES, READOUTS, RESERVED_NAMES


@Fitting.register("mft_property")
class MFTPropertyFittingNet(PropertyFittingNet):
    """Per-atom outputs of a property, one multilayer perceptron for all elements.

    With descriptors of shape nf x nloc x ndim it gives nf x nloc x task_dim, which the model
    scales, shifts by the bias of each element, and reduces by the readout:
    ``y = R_i [scale * MLP(D_i) + p(Z_i)]`` (MFT, arXiv 2601.08486, Eq. 16).

    Parameters
    ----------
    ntypes : int
        Number of elements.
    dim_descrpt : int
        Width of the descriptor.
    property_name : str
        Name of the property and of its label files.
    intensive : bool
        Whether the property does not grow with the number of atoms.
    readout : {"mean", "sum", "max"}, optional
        Reduction over the atoms; follows ``intensive`` if left out.
    bias : {"element", "mean", "none"}
        Constant part, fitted to the training labels (:mod:`.output_statistics`).
    **kwargs
        Those of deepmd-kit's ``property`` net.

    Raises
    ------
    UserError
        If the name is deepmd-kit's own, or readout and ``intensive`` contradict each other.
    """

    def __init__(
        self,
        ntypes: int,
        dim_descrpt: int,
        property_name: str,
        intensive: bool = False,
        readout: str | None = None,
        bias: str = "element",
        **kwargs: Any,
    ) -> None:
        if property_name in RESERVED_NAMES:
            raise UserError(
                f"property_name '{property_name}' is taken by deepmd-kit; choose another name "
                f"and rename the label files (taken: {', '.join(RESERVED_NAMES)})"
            )
        if readout is None:
            readout = "mean" if intensive else "sum"
        if readout not in READOUTS or bias not in BIASES:
            raise UserError(
                f"fitting_net of property '{property_name}': readout is '{readout}' (one of "
                f"{', '.join(READOUTS)}), bias is '{bias}' (one of {', '.join(BIASES)})"
            )
        if intensive != (readout != "sum"):
            raise UserError(
                f"fitting_net of property '{property_name}': readout '{readout}' and "
                f"intensive: {str(intensive).lower()} contradict each other; mean and max are "
                "for intensive properties, sum is for extensive ones"
            )
        kwargs["distinguish_types"] = True  # the bias is stored per element, whatever its kind
        super().__init__(
            ntypes, dim_descrpt, property_name=property_name, intensive=intensive, **kwargs
        )
        self.readout = readout
        self.bias = bias

    def serialize(self) -> dict:
        """Serialize as deepmd-kit's ``property`` net, which computes the same numbers.

        The bias is a constant of the model once fitted, so that a converted model runs in every
        backend.

        Raises
        ------
        UserError
            For readout ``max``, which deepmd-kit does not have.
        """
        if self.readout == "max":
            raise UserError(
                f"property '{self.var_name}': readout max cannot be converted to another "
                "backend; freeze the model with `dp --pt freeze` instead"
            )
        return super().serialize()

    # TorchScript needs the annotation in the class that it compiles.
    exclude_types: list[int]
