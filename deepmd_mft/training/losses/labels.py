"""What losses of labelled properties share: label files, missing labels, labels of groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from deepmd.utils.data import DataRequirementItem

from deepmd_mft.bridge.reading import MISSING, groups_in, label_or_nan
from deepmd_mft.errors import UserError
from deepmd_mft.names import GROUP
from deepmd_mft.training.losses.base import MFTLoss

if TYPE_CHECKING:
    from deepmd_mft.training.losses.base import Batch


class LabelLoss(MFTLoss):
    """A loss of labels that are one row per frame, or one for a group of frames.

    Attributes
    ----------
    label_dims : dict of int
        Columns of each label file, by the name of the property.
    missing_labels : {"error", "mask"}
        Whether a label that is absent or NaN ends the run, or is left out.
    """

    label_dims: dict[str, int]
    missing_labels: str

    def read_labels(self, batch: Batch, name: str) -> torch.Tensor:
        """Return the labels of a property.

        deepmd-kit checks no value that it reads, and no width of what it reads from LMDB.

        Parameters
        ----------
        batch : Batch
        name : str
            The property.

        Returns
        -------
        torch.Tensor
            nf x label dimension; NaN where missing.

        Raises
        ------
        UserError
            If labels have another width, are infinite, or are missing and must not be.
        """
        labels, dim = label_or_nan(batch.label, name), self.label_dims[name]
        if labels.shape[1] != dim:
            raise UserError(
                f"property '{name}': a label has {labels.shape[1]} component(s) where the head "
                f"expects {dim} ({_first_frame(batch)}); make task_dim of fitting_net and loss "
                "equal to the columns of the label file"
            )
        infinite, missing = torch.isinf(labels), torch.isnan(labels)
        if infinite.any():
            raise UserError(
                f"property '{name}': a label is infinite ({_first_frame(batch, infinite)}); mend "
                "it, or remove the frame"
            )
        if self.missing_labels == "error" and missing.any():
            frames = int(missing.any(dim=1).sum())
            raise UserError(
                f"property '{name}': {frames} of the {len(labels)} frames of a batch have no label "
                f"({_first_frame(batch, missing)}); mend their labels or remove them, or "
                "set missing_labels: mask in the loss to leave them out"
            )
        return labels

    @property
    def label_requirement(self) -> list[DataRequirementItem]:
        """The labels to load: ``<property_name>.npy`` in every set, or that field of an LMDB.

        And the groups that they belong to, where they do.
        """
        must = self.missing_labels == "error"
        wanted = [*((name, dim, must) for name, dim in self.label_dims.items()), (GROUP, 1, False)]
        return [
            DataRequirementItem(
                name, ndof=dim, atomic=False, must=needed, high_prec=True, default=MISSING
            )
            for name, dim, needed in wanted
        ]


class Pool:
    """Takes means over the frames of each group of a batch, every frame weighing the same.

    Frames without a group, all of most trainings, stay as they are.

    Parameters
    ----------
    batch : Batch
    """

    def __init__(self, batch: Batch) -> None:
        nframes = len(batch.inputs["atype"])
        numbers = groups_in(batch.label, nframes).to(batch.inputs["coord"].device)
        alone = numbers.isnan()
        self.trivial = bool(alone.all())
        if self.trivial:
            return
        numbers = torch.where(alone, -1.0 - torch.arange(nframes, device=numbers.device), numbers)
        _, self.groups, self.sizes = numbers.unique(return_inverse=True, return_counts=True)

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """Return the mean of each group; nf x dim to ngroups x dim."""
        if self.trivial:
            return values
        total = values.new_zeros(len(self.sizes), *values.shape[1:])
        total = total.index_add(0, self.groups, values)
        return total / self.sizes.to(values.dtype)[:, None]


def names_of(property_name: str | list[str] | None, loss: str) -> list[str]:
    """Return the properties of a loss as a list.

    Raises
    ------
    UserError
        If there is none.
    """
    if not property_name:
        raise UserError(
            f"a loss of type {loss} has no property_name, and no fitting net to take it from; give "
            "it one"
        )
    return [property_name] if isinstance(property_name, str) else list(property_name)


def head_of(model: Any, loss: str, native: str) -> Any:
    """Return the fitting net of a model of type ``mft``.

    Raises
    ------
    UserError
        If the model is none.
    """
    if not hasattr(model, "property_names"):
        raise UserError(
            f"a loss of type {loss} belongs to a model of type mft; with deepmd-kit's own property "
            f"head use {native}"
        )
    return model.atomic_model.fitting_net


def _first_frame(batch: Batch, wrong: torch.Tensor | None = None) -> str:
    """Say which frame of a batch is the first wrong one, by what the loss knows of it."""
    number = 0 if wrong is None else int(wrong.any(dim=1).nonzero()[0])
    type_map = batch.model.get_type_map()
    types = batch.inputs["atype"][number]
    counts = torch.bincount(types[types >= 0], minlength=len(type_map)).tolist()
    formula = "".join(
        f"{symbol}{count if count > 1 else ''}"
        for symbol, count in sorted(zip(type_map, counts, strict=True))
        if count
    )
    return f"the first is {formula}, {sum(counts)} atoms"
