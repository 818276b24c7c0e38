"""The labels of a set that a model's predictions are compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deepmd_mft.errors import UserError
from deepmd_mft.structures.class_labels import not_classes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np

    from deepmd_mft.inference.predictor import Output
    from deepmd_mft.structures.structure_set import StructureSet

__all__ = ["check_units", "labels_of", "one_unit"]


def check_units(sets: Sequence[StructureSet], names: Iterable[str]) -> None:
    """Refuse sets that have a label in different units, as far as they say it.

    Raises
    ------
    UserError
        With the sets and their units.
    """
    for name in names:
        one_unit(name, ((one.units.get(name), one.name) for one in sets))


def one_unit(name: str, said: Iterable[tuple[str | None, str]]) -> None:
    """Refuse units of a label that differ.

    Parameters
    ----------
    name : str
        Of the label.
    said : iterable of (unit, place)
        What is said, and of what; None where nothing is.

    Raises
    ------
    UserError
        If they do.
    """
    known: dict[str, str] = {}
    for unit, place in said:
        if unit:
            known.setdefault(unit, place)
    if len(known) > 1:
        listed = ", but in ".join(f"{unit} in {place}" for unit, place in known.items())
        raise UserError(f"{name} is in {listed}; a model predicts one unit, convert the data to it")


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
