"""The loss ``mft_property``."""

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


@TaskLoss.register("mft_property")
class MFTPropertyLoss(LabelLoss):
    """Difference of labels and predicted properties, in units of the head's scale.

    For an extensive property label and prediction are divided by the number of atoms first. Where
    labels belong to groups of frames, predictions (and variances, and numbers of atoms) are means
    over the frames of a group, and a group counts once. NaN labels, and systems without the label
    file, are left out if ``missing_labels`` is ``mask``.

    Parameters
    ----------
    property_name : str or list of str
        Name of the labels and of the model's output; in a training, the fitting net's if left out.
    starter_learning_rate : float
        Learning rate at the first step, for the prefactor's schedule.
    task_dim : int or list of int
        Number of components of each property; in a training, the fitting net's if left out.
    weight : float or list of float
        Weight of each property in the loss.
    loss_func : {"smooth_mae", "mae", "mse", "rmse", "mape", "gaussian_nll"}
    beta : float
        Where ``smooth_mae`` turns linear, in units of the scale.
    reduction : {"mean", "sum"}
        Over frames (or groups) and components; rmse and mape are always means.
    start_pref, limit_pref : float
        Prefactor of the loss, following the learning rate as deepmd-kit's energy prefactors do.
    missing_labels : {"error", "mask"}
        What to do about missing labels.
    metric : list of str
        What is displayed, in the unit of the label (per atom if extensive).
    regularizers : list of dict, optional
        Terms that hold on to the pretrained backbone (:mod:`deepmd_mft.training.regularizers`).
    edge_dropout : float
        Share of the edges dropped while training (:mod:`deepmd_mft.backbones.edge_dropout`).
    """

    def __init__(
        self,
        property_name: str | list[str] | None = None,
        starter_learning_rate: float = 1.0,
        task_dim: int | list[int] | None = None,
        weight: float | list[float] = 1.0,
        loss_func: str = "smooth_mae",
        beta: float = 1.0,
        reduction: str = "mean",
        start_pref: float = 1.0,
        limit_pref: float = 1.0,
        missing_labels: str = "error",
        metric: tuple[str, ...] = ("mae", "rmse"),
        regularizers: list[dict[str, Any]] | None = None,
        edge_dropout: float = 0.0,
        **_kwargs: Any,
    ) -> None:
        super().__init__()
        self.regularizers = build_regularizers(regularizers or [])
        self.edge_dropout = edge_dropout
        names = names_of(property_name, "mft_property")
        dims = _one_each(1 if task_dim is None else task_dim, names, "task_dim")
        self.label_dims = dict(zip(names, dims, strict=True))
        self.weights = _one_each(weight, names, "weight")
        self.starter_learning_rate = starter_learning_rate
        self.loss_func = loss_func
        self.beta = beta
        self.reduction = reduction
        self.start_pref = start_pref
        self.limit_pref = limit_pref
        self.missing_labels = missing_labels
        self.metric = list(metric)
        self.arguments = {
            "property_name": names,
            "starter_learning_rate": starter_learning_rate,
            "task_dim": dims,
            "weight": self.weights,
            "loss_func": loss_func,
            "beta": beta,
            "reduction": reduction,
            "start_pref": start_pref,
            "limit_pref": limit_pref,
            "missing_labels": missing_labels,
            "metric": self.metric,
            "regularizers": regularizers or [],
            "edge_dropout": edge_dropout,
        }

    @classmethod
    def options_of_head(cls, model: Any, options: dict[str, Any]) -> dict[str, Any]:
        """Return the names and dimensions that the head has."""
        dims = _dims_of(model)
        names = options.get("property_name") or list(dims)
        listed = [names] if isinstance(names, str) else names
        # a name that the head does not have is named by check_model
        return {"property_name": names, "task_dim": [dims.get(name, 1) for name in listed]}

    def check_model(self, model: Any) -> None:
        """Raise UserError if head and loss differ in properties, or a variance is missing."""
        in_head = _dims_of(model)
        if in_head != self.label_dims:
            raise UserError(
                f"the fitting net predicts {_listed(in_head)}, its loss expects "
                f"{_listed(self.label_dims)}: make property_name and task_dim of loss and "
                "fitting_net equal"
            )
        predicts = getattr(model.atomic_model.fitting_net, "predict_variance", False)
        if self.loss_func == "gaussian_nll" and not predicts:
            raise UserError(
                "loss_func gaussian_nll needs a variance: set predict_variance: true in the "
                "fitting_net"
            )

    def terms(self, batch: Batch) -> Iterator[Term]:
        """Return one term per property."""
        coefficient = batch.learning_rate / self.starter_learning_rate
        pref = self.limit_pref + (self.start_pref - self.limit_pref) * coefficient
        pool = Pool(batch)
        atoms = pool(batch.prediction["mask"].sum(dim=1, keepdim=True).double())
        for name, weight in zip(self.label_dims, self.weights, strict=True):
            labels = pool(self.read_labels(batch, name))
            known = ~labels.isnan()
            predicted = pool(batch.prediction[name])
            per_atom = torch.ones_like(predicted)
            if not batch.model.is_intensive[batch.model.property_names.index(name)]:
                per_atom = atoms.to(predicted.dtype).expand_as(predicted)
            here, there = (predicted / per_atom)[known], (labels / per_atom)[known]
            variance = batch.prediction.get(f"{name}_variance")
            value = distance(
                here,
                there,
                self.loss_func,
                scale=batch.model.label_scale(name).expand_as(predicted)[known],
                beta=self.beta,
                reduction=self.reduction,
                variance=None if variance is None else (pool(variance) / per_atom**2)[known],
            )
            columns = {
                self._column(kind, name): distance(
                    here.detach(), there, kind, beta=self.beta, empty=torch.nan
                )
                for kind in self.metric
            }
            yield Term(f"property {name}", value, pref * weight, columns)

    def _column(self, kind: str, name: str) -> str:
        """Return the name of a metric in ``lcurve.out``.

        A batch may have no label where they may be missing, and deepmd-kit stops at a NaN in
        ``rmse``.
        """
        may_be_nan = kind == "rmse" and self.missing_labels == "mask"
        return f"{kind}_{name}" if len(self.label_dims) > 1 or may_be_nan else kind


def _dims_of(model: Any) -> dict[str, int]:
    net = head_of(model, "mft_property", "its loss of type property")
    return dict(zip(model.property_names, net.label_dims, strict=True))


def _one_each(value: Any, names: list[str], key: str) -> list:
    values = list(value) if isinstance(value, (list, tuple)) else [value] * len(names)
    if len(values) != len(names):
        raise UserError(
            f"loss: {key} has {len(values)} entries for {len(names)} properties "
            f"({', '.join(names)}); give one each, or a single value for all"
        )
    return values


def _listed(properties: dict[str, int]) -> str:
    return ", ".join(f"'{name}' (task_dim {dim})" for name, dim in properties.items())


def distance(
    predicted: torch.Tensor,
    target: torch.Tensor,
    kind: str,
    *,
    scale: torch.Tensor | float = 1.0,
    beta: float = 1.0,
    reduction: str = "mean",
    variance: torch.Tensor | None = None,
    empty: float = 0.0,
) -> torch.Tensor:
    """Return how far predictions are from their targets.

    Parameters
    ----------
    predicted, target : torch.Tensor
        n values.
    kind : {"mse", "mae", "smooth_mae", "rmse", "mape", "gaussian_nll", "r2"}
    scale : torch.Tensor or float
        Unit of the difference, n values or one; not used by mape and r2.
    beta : float
        Turning point of smooth_mae in units of the scale.
    reduction : {"mean", "sum"}
        Not used by rmse, mape and r2.
    variance : torch.Tensor, optional
        Predicted variances, n values, for gaussian_nll.
    empty : float
        What to return if there are no values.

    Returns
    -------
    torch.Tensor
        A scalar.
    """
    if target.numel() == 0:
        return predicted.sum() + empty
    if kind == "mape":
        # deepmd-kit's guard against labels that are zero
        return ((target - predicted) / (target + 1e-3)).abs().mean()
    if kind == "r2":
        spread = (target - target.mean()).square().sum()
        r2 = 1 - (target - predicted).square().sum() / spread
        return r2 if spread > 0 else torch.full_like(r2, torch.nan)
    predicted, target = predicted / scale, target / scale
    if kind == "mse":
        return F.mse_loss(predicted, target, reduction=reduction)
    if kind == "mae":
        return F.l1_loss(predicted, target, reduction=reduction)
    if kind == "smooth_mae":
        return F.smooth_l1_loss(predicted, target, reduction=reduction, beta=beta)
    if kind == "rmse":
        return F.mse_loss(predicted, target).sqrt()
    if kind == "gaussian_nll" and variance is not None:
        return F.gaussian_nll_loss(predicted, target, variance / scale**2, reduction=reduction)
    raise UserError(f"unknown loss_func or metric '{kind}'")
