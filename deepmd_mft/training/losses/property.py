"""The loss ``mft_property``."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from deepmd.pt.loss.loss import TaskLoss
from deepmd.utils.data import DataRequirementItem

from deepmd_mft.errors import UserError


@TaskLoss.register("mft_property")
class MFTPropertyLoss(TaskLoss):
    """Difference of labels and predicted properties, in units of the head's scale.

    For an extensive property label and prediction are divided by the number of atoms first. NaN
    labels, and systems without the label file, are left out if ``missing_labels`` is ``mask``.

    Parameters
    ----------
    property_name : str or list of str
        Name of the labels and of the model's output.
    starter_learning_rate : float
        Learning rate at the first step, for the prefactor's schedule.
    task_dim : int or list of int
        Number of components of each property.
    weight : float or list of float
        Weight of each property in the loss.
    loss_func : {"smooth_mae", "mae", "mse", "rmse", "mape", "gaussian_nll"}
    beta : float
        Where ``smooth_mae`` turns linear, in units of the scale.
    reduction : {"mean", "sum"}
        Over frames and components; rmse and mape are always means.
    start_pref, limit_pref : float
        Prefactor of the loss, following the learning rate as deepmd-kit's energy prefactors do.
    missing_labels : {"error", "mask"}
        What to do about missing labels.
    metric : list of str
        What is displayed, in the unit of the label (per atom if extensive).
    """

    def __init__(
        self,
        property_name: str | list[str],
        starter_learning_rate: float = 1.0,
        task_dim: int | list[int] = 1,
        weight: float | list[float] = 1.0,
        loss_func: str = "smooth_mae",
        beta: float = 1.0,
        reduction: str = "mean",
        start_pref: float = 1.0,
        limit_pref: float = 1.0,
        missing_labels: str = "error",
        metric: tuple[str, ...] = ("mae", "rmse"),
        **_kwargs: Any,
    ) -> None:
        super().__init__()
        names = [property_name] if isinstance(property_name, str) else list(property_name)
        self.property_names = names
        self.task_dims = _one_each(task_dim, names, "task_dim")
        self.weights = _one_each(weight, names, "weight")
        self.starter_learning_rate = starter_learning_rate
        self.loss_func = loss_func
        self.beta = beta
        self.reduction = reduction
        self.start_pref = start_pref
        self.limit_pref = limit_pref
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
        """Predict a batch and compare it with its labels.

        Parameters
        ----------
        input_dict : dict of torch.Tensor
            Inputs of the model.
        model : torch.nn.Module
            A model of type ``mft``.
        label : dict of torch.Tensor
            Holds ``<property_name>``, nf x task_dim.
        natoms : int
            Atoms of a frame where the batch has no padding; not used.
        learning_rate : float
            The current learning rate.
        mae : bool
            deepmd-kit passes it for display; not used.

        Returns
        -------
        model_pred : dict of torch.Tensor
        loss : torch.Tensor
            A scalar.
        more_loss : dict of torch.Tensor
            The metrics.
        """
        del natoms, mae
        self._check_head(model)
        model_pred = model(**input_dict)
        atoms = model_pred["mask"].sum(dim=1, keepdim=True)
        loss = torch.zeros((), dtype=torch.float64, device=atoms.device)
        more_loss: dict[str, torch.Tensor] = {}
        for number, name in enumerate(self.property_names):
            predicted, target = model_pred[name], label[name]
            per_atom = torch.ones_like(predicted)
            if not model.is_intensive[number]:
                per_atom = atoms.to(predicted.dtype).expand_as(predicted)
            known = known_labels(label, name)
            scale = model.label_scale(name).expand_as(predicted)
            variance = model_pred.get(f"{name}_variance")
            value = distance(
                (predicted / per_atom)[known],
                (target / per_atom)[known],
                self.loss_func,
                scale=scale[known],
                beta=self.beta,
                reduction=self.reduction,
                variance=None if variance is None else (variance / per_atom**2)[known],
            )
            loss = loss + self.weights[number] * value
            for kind in self.metric:
                shown = kind if len(self.property_names) == 1 else f"{kind}_{name}"
                more_loss[shown] = distance(
                    (predicted / per_atom)[known].detach(),
                    (target / per_atom)[known],
                    kind,
                    beta=self.beta,
                    empty=torch.nan,
                )
        coefficient = learning_rate / self.starter_learning_rate
        pref = self.limit_pref + (self.start_pref - self.limit_pref) * coefficient
        return model_pred, pref * loss, more_loss

    def _check_head(self, model: torch.nn.Module) -> None:
        names = getattr(model, "property_names", None)
        if names is None:
            raise UserError(
                "a loss of type mft_property belongs to a model of type mft; with deepmd-kit's own "
                "property head use its loss of type property"
            )
        net = model.atomic_model.fitting_net
        in_head = dict(zip(names, net.label_dims, strict=True))
        in_loss = dict(zip(self.property_names, self.task_dims, strict=True))
        if in_head != in_loss:
            raise UserError(
                f"the fitting net predicts {_listed(in_head)}, its loss expects "
                f"{_listed(in_loss)}: make property_name and task_dim of loss and fitting_net equal"
            )
        if self.loss_func == "gaussian_nll" and not getattr(net, "predict_variance", False):
            raise UserError(
                "loss_func gaussian_nll needs a variance: set predict_variance: true in the "
                "fitting_net"
            )

    @property
    def label_requirement(self) -> list[DataRequirementItem]:
        """The labels to load: ``<property_name>.npy`` in every set."""
        return [
            DataRequirementItem(
                name,
                ndof=dim,
                atomic=False,
                must=self.missing_labels == "error",
                high_prec=True,
            )
            for name, dim in zip(self.property_names, self.task_dims, strict=True)
        ]

    def serialize(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            "@class": "MFTPropertyLoss",
            "@version": 1,
            "property_name": self.property_names,
            "starter_learning_rate": self.starter_learning_rate,
            "task_dim": self.task_dims,
            "weight": self.weights,
            "loss_func": self.loss_func,
            "beta": self.beta,
            "reduction": self.reduction,
            "start_pref": self.start_pref,
            "limit_pref": self.limit_pref,
            "missing_labels": self.missing_labels,
            "metric": self.metric,
        }

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> MFTPropertyLoss:
        """Build the loss from :meth:`serialize`'s dict."""
        return cls(**{key: value for key, value in data.items() if not key.startswith("@")})


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


def known_labels(label: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    """Return which labels are there: the system has the file, and the entry is not NaN.

    Parameters
    ----------
    label : dict of torch.Tensor
        A batch's labels; ``find_<name>`` says whether the file was found.
    name : str
        The property.

    Returns
    -------
    torch.Tensor
        nf x task_dim, bool.
    """
    found = bool(label.get(f"find_{name}", 1.0))
    return torch.isfinite(label[name]) & found


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
        return 1 - (target - predicted).square().sum() / (target - target.mean()).square().sum()
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
