"""The head ``mft_classification``: logits of classes.

No ``from __future__ import annotations`` here: TorchScript reads the annotations.
"""

from typing import Any

import numpy as np
from deepmd.pt.model.task.fitting import Fitting

from deepmd_mft.errors import UserError
from deepmd_mft.models.heads.base import MFTFittingNet
from deepmd_mft.models.heads.property import MFTPropertyFittingNet, PropertyModel
from deepmd_mft.models.mft_model import register_head
from deepmd_mft.models.statistics import OutputStatistics
from deepmd_mft.structures.class_labels import not_classes


@Fitting.register("mft_classification")
class MFTClassificationFittingNet(MFTPropertyFittingNet):
    """Logits of the classes of a frame, read out from per-atom logits.

    Two classes have one logit, that of class 1; more have one each. The bias of the logits is that
    of the training labels' frequencies, so that training starts from guessing by frequency.

    Parameters
    ----------
    ntypes : int
        Number of elements.
    dim_descrpt : int
        Width of the descriptor.
    property_name : str
        Name of the property and of its label files: one column of class numbers from 0.
    num_classes : int
        At least 2.
    readout : {"mean", "max", "attention"}
        Reduction over the atoms.
    **kwargs
        Those of deepmd-kit's ``property`` net.

    Raises
    ------
    UserError
        If there are fewer than two classes, or the readout is ``sum``.
    """

    def __init__(
        self,
        ntypes: int,
        dim_descrpt: int,
        property_name: str,
        num_classes: int = 2,
        readout: str = "mean",
        **kwargs: Any,
    ) -> None:
        if num_classes < 2:
            raise UserError(
                f"property '{property_name}': num_classes is {num_classes}; it must be at least 2"
            )
        self.num_classes = num_classes
        super().__init__(
            ntypes,
            dim_descrpt,
            property_name,
            task_dim=1 if num_classes == 2 else num_classes,
            intensive=True,
            readout=readout,
            bias="mean",
            **kwargs,
        )
        self.label_dims = [1]

    def fit_statistics(
        self, number: int, labels: np.ndarray, counts: np.ndarray, weights: np.ndarray
    ) -> OutputStatistics:
        """Return as bias the logits of the class frequencies, one count added to each class.

        Raises
        ------
        UserError
            If a label is no class number, or only one class occurs.
        """
        del weights
        name = self.property_names[number]
        frequency = count_classes(labels, self.num_classes, name) + 1.0
        if self.num_classes == 2:
            logits = np.log(frequency[1:] / frequency[:1])
        else:
            logits = np.log(frequency / frequency.sum())
        bias = np.repeat(logits[None], counts.shape[1], axis=0)
        return OutputStatistics(bias, np.ones(len(logits)), counts.sum(axis=0) == 0)

    def fit_shift(
        self, number: int, residuals: np.ndarray, counts: np.ndarray, weights: np.ndarray
    ) -> np.ndarray:
        """Return zero: the logits of a fine-tuned head stay."""
        del residuals, weights
        return np.zeros((counts.shape[1], self.variable_dims[number]))

    def serialize(self) -> dict:
        """Refuse: deepmd-kit has no classes, and would take the logits for a property."""
        return MFTFittingNet.serialize(self)

    # TorchScript needs the annotation in the class that it compiles.
    exclude_types: list[int]


def count_classes(labels: np.ndarray, num_classes: int, name: str) -> np.ndarray:
    """Return how many labels each class has.

    Parameters
    ----------
    labels : np.ndarray
        Class numbers, NaN where missing.
    num_classes : int
    name : str
        For messages.

    Raises
    ------
    UserError
        If a label is no class number, or only one class occurs.
    """
    known = labels[np.isfinite(labels)]
    bad = not_classes(labels, num_classes)
    if len(bad):
        raise UserError(
            f"property '{name}': label {bad[0]:g} is no class; with num_classes {num_classes} the "
            f"labels must be whole numbers from 0 to {num_classes - 1}"
        )
    frequency = np.bincount(known.astype(int), minlength=num_classes)
    if np.count_nonzero(frequency) < 2:
        raise UserError(
            f"property '{name}': {int(frequency.sum())} labels, all of one class; at least two "
            "classes must occur in the training data"
        )
    return frequency


@register_head("mft_classification")
class ClassificationModel(PropertyModel):
    """A model with the head ``mft_classification``; its outputs are logits."""
