"""The loss ``mft_classification``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from deepmd.pt.loss.loss import TaskLoss

from deepmd_mft.errors import UserError
from deepmd_mft.training.losses.base import Term
from deepmd_mft.training.losses.labels import LabelLoss, Pool, head_of, names_of
from deepmd_mft.training.regularizers import build_regularizers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deepmd_mft.training.losses.base import Batch


@TaskLoss.register("mft_classification")
class MFTClassificationLoss(LabelLoss):
    """Cross-entropy of the logits of ``mft_classification``.

    Parameters
    ----------
    property_name : str
        Name of the labels: one column of class numbers from 0; in a training, the fitting net's
        if left out.
    num_classes : int
        At least 2, as in the fitting net; in a training, the fitting net's if left out.
    class_weights : list of float, optional
        Weight of each class; all 1 if left out.
    missing_labels : {"error", "mask"}
        What to do about missing labels.
    metric : list of str
        ``accuracy``, ``roc_auc`` (two classes), ``cross_entropy``.
    regularizers : list of dict, optional
        Terms that hold on to the pretrained backbone (:mod:`deepmd_mft.training.regularizers`).
    edge_dropout : float
        Share of the edges dropped while training (:mod:`deepmd_mft.backbones.edge_dropout`).
    """

    def __init__(
        self,
        property_name: str | None = None,
        num_classes: int | None = None,
        class_weights: list[float] | None = None,
        missing_labels: str = "error",
        metric: tuple[str, ...] = ("accuracy",),
        regularizers: list[dict[str, Any]] | None = None,
        edge_dropout: float = 0.0,
        **_kwargs: Any,
    ) -> None:
        super().__init__()
        self.regularizers = build_regularizers(regularizers or [])
        self.edge_dropout = edge_dropout
        (name,) = names_of(property_name, "mft_classification")
        num_classes = 2 if num_classes is None else num_classes
        if class_weights is not None and len(class_weights) != num_classes:
            raise UserError(
                f"loss of property '{name}': class_weights has {len(class_weights)} "
                f"entries for {num_classes} classes; give one each"
            )
        if "roc_auc" in metric and num_classes != 2:
            raise UserError(
                f"loss of property '{name}': metric roc_auc is for two classes, there "
                f"are {num_classes}; use accuracy"
            )
        self.property_name = name
        self.label_dims = {name: 1}
        self.num_classes = num_classes
        self.class_weights = class_weights
        self.missing_labels = missing_labels
        self.metric = list(metric)
        self.arguments = {
            "property_name": name,
            "num_classes": num_classes,
            "class_weights": class_weights,
            "missing_labels": missing_labels,
            "metric": self.metric,
            "regularizers": regularizers or [],
            "edge_dropout": edge_dropout,
        }

    @classmethod
    def options_of_head(cls, model: Any, options: dict[str, Any]) -> dict[str, Any]:
        """Return the name and number of classes that the head has."""
        del options
        return {
            "property_name": _head(model).var_name,
            "num_classes": getattr(_head(model), "num_classes", None),
        }

    def check_model(self, model: Any) -> None:
        """Raise UserError if head and loss differ in name or number of classes."""
        net = _head(model)
        if (net.var_name, getattr(net, "num_classes", None)) != (
            self.property_name,
            self.num_classes,
        ):
            raise UserError(
                f"the loss expects classes of '{self.property_name}' with num_classes "
                f"{self.num_classes}: make property_name and num_classes of loss and fitting_net "
                "(of type mft_classification) equal"
            )

    def terms(self, batch: Batch) -> Iterator[Term]:
        """Return the cross-entropy."""
        pool = Pool(batch)
        labels = pool(self.read_labels(batch, self.property_name))
        known = ~labels.isnan()
        logits = class_logits(pool(batch.prediction[self.property_name]))
        logits, classes = logits[known[:, 0]], self._class_numbers(labels[known])
        weights = logits.new_tensor(self.class_weights or [1.0] * self.num_classes)
        counts = bool(weights[classes].any())  # the mean over frames without weight is NaN
        loss = F.cross_entropy(logits, classes, weight=weights) if counts else 0.0 * logits.sum()
        shown = logits.detach()
        columns = {name: class_metric(shown, classes, name) for name in self.metric}
        yield Term(f"property {self.property_name}", loss, 1.0, columns)

    def _class_numbers(self, labels: torch.Tensor) -> torch.Tensor:
        classes = labels.round().long()
        bad = (classes != labels) | (classes < 0) | (classes >= self.num_classes)
        if bad.any():
            raise UserError(
                f"property '{self.property_name}': label {float(labels[bad][0]):g} is no class; "
                f"the labels must be whole numbers from 0 to {self.num_classes - 1}"
            )
        return classes


def _head(model: Any) -> Any:
    return head_of(model, "mft_classification", "a loss of its own")


def class_logits(output: torch.Tensor) -> torch.Tensor:
    """Return one logit per class; a single logit is that of class 1 against class 0.

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
