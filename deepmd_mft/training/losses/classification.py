"""The loss ``mft_classification``."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from deepmd.pt.loss.loss import TaskLoss
from deepmd.utils.data import DataRequirementItem

from deepmd_mft.errors import UserError
from deepmd_mft.training.losses.property import known_labels


@TaskLoss.register("mft_classification")
class MFTClassificationLoss(TaskLoss):
    """Cross-entropy of the logits of ``mft_classification``.

    Parameters
    ----------
    property_name : str
        Name of the labels: one column of class numbers from 0.
    num_classes : int
        At least 2, as in the fitting net.
    class_weights : list of float, optional
        Weight of each class; all 1 if left out.
    missing_labels : {"error", "mask"}
        What to do about missing labels.
    metric : list of str
        ``accuracy``, ``roc_auc`` (two classes), ``cross_entropy``.
    """

    def __init__(
        self,
        property_name: str,
        num_classes: int = 2,
        class_weights: list[float] | None = None,
        missing_labels: str = "error",
        metric: tuple[str, ...] = ("accuracy",),
        **_kwargs: Any,
    ) -> None:
        super().__init__()
        if class_weights is not None and len(class_weights) != num_classes:
            raise UserError(
                f"loss of property '{property_name}': class_weights has {len(class_weights)} "
                f"entries for {num_classes} classes; give one each"
            )
        if "roc_auc" in metric and num_classes != 2:
            raise UserError(
                f"loss of property '{property_name}': metric roc_auc is for two classes, there "
                f"are {num_classes}; use accuracy"
            )
        self.property_name = property_name
        self.num_classes = num_classes
        self.class_weights = class_weights
        self.missing_labels = missing_labels
        self.metric = list(metric)

    def forward(
        self,
        input_dict: dict[str, torch.Tensor],
        model: torch.nn.Module,
        label: dict[str, torch.Tensor],
        natoms: int,
        learning_rate: float = 0.0,
        mae: bool = False,
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor, dict[str, torch.Tensor]]:
        """Predict a batch and compare it with its labels: see :meth:`.MFTPropertyLoss.forward`."""
        del natoms, learning_rate, mae
        self._check_head(model)
        model_pred = model(**input_dict)
        logits = class_logits(model_pred[self.property_name])
        known = known_labels(label, self.property_name)[:, 0]
        classes = torch.nan_to_num(label[self.property_name][:, 0]).round().long()
        if known.any():
            self._check_classes(classes[known], label[self.property_name][:, 0][known])
        logits, classes = logits[known], classes[known]
        weights = None
        if self.class_weights is not None:
            weights = torch.tensor(self.class_weights, dtype=logits.dtype, device=logits.device)
        loss = F.cross_entropy(logits, classes, weight=weights) if len(classes) else logits.sum()
        shown = logits.detach()
        more_loss = {name: class_metric(shown, classes, name) for name in self.metric}
        return model_pred, loss, more_loss

    def _check_head(self, model: torch.nn.Module) -> None:
        net = getattr(getattr(model, "atomic_model", None), "fitting_net", None)
        expected = (self.property_name, self.num_classes)
        if (getattr(net, "var_name", None), getattr(net, "num_classes", None)) != expected:
            raise UserError(
                f"the loss expects classes of '{self.property_name}' with num_classes "
                f"{self.num_classes}: make property_name and num_classes of loss and fitting_net "
                "(of type mft_classification) equal"
            )

    def _check_classes(self, classes: torch.Tensor, labels: torch.Tensor) -> None:
        bad = (classes != labels) | (classes < 0) | (classes >= self.num_classes)
        if bad.any():
            raise UserError(
                f"property '{self.property_name}': label {float(labels[bad][0]):g} is no class; "
                f"the labels must be whole numbers from 0 to {self.num_classes - 1}"
            )

    @property
    def label_requirement(self) -> list[DataRequirementItem]:
        """The labels to load: ``<property_name>.npy`` in every set."""
        must = self.missing_labels == "error"
        return [
            DataRequirementItem(self.property_name, ndof=1, atomic=False, must=must, high_prec=True)
        ]

    def serialize(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            "@class": "MFTClassificationLoss",
            "@version": 1,
            "property_name": self.property_name,
            "num_classes": self.num_classes,
            "class_weights": self.class_weights,
            "missing_labels": self.missing_labels,
            "metric": self.metric,
        }

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> MFTClassificationLoss:
        """Build the loss from :meth:`serialize`'s dict."""
        return cls(**{key: value for key, value in data.items() if not key.startswith("@")})


def class_logits(output: torch.Tensor) -> torch.Tensor:
    """Return one logit a class; a single logit is that of class 1 against class 0.

    Parameters
    ----------
    output : torch.Tensor
        nf x 1 or nf x num_classes

    Returns
    -------
    torch.Tensor
        nf x num_classes
    """
    if output.shape[1] == 1:
        return torch.cat([torch.zeros_like(output), output], dim=1)
    return output


def class_metric(logits: torch.Tensor, classes: torch.Tensor, name: str) -> torch.Tensor:
    """Return a metric over the frames of a batch; NaN where it is not defined.

    Parameters
    ----------
    logits : torch.Tensor
        nf x num_classes
    classes : torch.Tensor
        nf
    name : {"accuracy", "roc_auc", "cross_entropy"}
    """
    if len(classes) == 0:
        return torch.tensor(torch.nan)
    if name == "accuracy":
        return (logits.argmax(dim=1) == classes).double().mean()
    if name == "cross_entropy":
        return F.cross_entropy(logits, classes)
    if name == "roc_auc":
        score = logits[:, 1] - logits[:, 0]
        positive, negative = score[classes == 1], score[classes == 0]
        if len(positive) == 0 or len(negative) == 0:
            return torch.tensor(torch.nan)
        # the probability that a positive scores above a negative (Mann-Whitney)
        above = (positive[:, None] > negative).double() + 0.5 * (positive[:, None] == negative)
        return above.mean()
    raise UserError(f"unknown metric '{name}'")
