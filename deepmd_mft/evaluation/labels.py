"""The labels of a set that a model's predictions are compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deepmd_mft.errors import UserError
from deepmd_mft.structures.class_labels import not_classes

if TYPE_CHECKING:
    import numpy as np

    from deepmd_mft.inference.predictor import Output
    from deepmd_mft.structures.structure_set import StructureSet

__all__ = ["labels_of"]


def labels_of(structures: StructureSet, output: Output) -> np.ndarray | None:
    """Return the labels of what a model predicts.

    Returns
    -------
    np.ndarray or None
        nframes x columns, NaN where a structure has none; None if all have none.

    Raises
    ------
    UserError
        If there are more or fewer columns, or a label is no class of the model.
    """
    label = structures.labels(output.name, output.label_columns)
    if label is None or output.num_classes is None:
        return label
    bad = not_classes(label, output.num_classes)
    if len(bad):
        row = int((label == bad[0]).any(axis=1).argmax())
        raise UserError(
            f"structure {structures.ids[row]} of {structures.name} has the label {output.name} = "
            f"{bad[0]:g}, but the model tells {output.num_classes} classes; its labels are whole "
            f"numbers from 0 to {output.num_classes - 1}"
        )
    return label
