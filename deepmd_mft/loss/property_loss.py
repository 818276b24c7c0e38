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
    """Difference of labels and predicted property, in units of the head's scale.

    For an extensive property label and prediction are divided by the number of atoms first.

    Parameters
    ----------
    property_name : str
        Name of the labels and of the model's output.
    starter_learning_rate : float
        Learning rate at the first step, for the prefactor's schedule.
    task_dim : int
        Number of components.
    loss_func : {"smooth_mae", "mae", "mse", "rmse", "mape"}
    beta : float
        Where ``smooth_mae`` turns linear, in units of the scale.
    reduction : {"mean", "sum"}
        Over frames and components; rmse and mape are always means.
    start_pref, limit_pref : float
        Prefactor of the loss, following the learning rate as deepmd-kit's energy prefactors do.
    metric : list of str
        What is displayed, in the unit of the label (per atom if extensive).
    """

    def __init__(
        self,
        property_name: str,
        starter_learning_rate: float = 1.0,
        task_dim: int = 1,
        loss_func: str = "smooth_mae",
        beta: float = 1.0,
        reduction: str = "mean",
        start_pref: float = 1.0,
        limit_pref: float = 1.0,
        metric: tuple[str, ...] = ("mae", "rmse"),
        **_kwargs: Any,
    ) -> None:
        super().__init__()
        self.property_name = property_name
        self.starter_learning_rate = starter_learning_rate
        self.task_dim = task_dim
        self.loss_func = loss_func
        self.beta = beta
        self.reduction = reduction
        self.start_pref = start_pref
        self.limit_pref = limit_pref
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
            A property model: type ``mft`` or deepmd-kit's ``property``.
        label : dict of torch.Tensor
            Holds ``<property_name>``, nf x task_dim.
        natoms : int
            Atoms of a frame where the batch has no padding.
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
        model_pred = self._inject_atom_mask(model(**input_dict), input_dict)
        predicted, target = model_pred[self.property_name], label[self.property_name]
        if not model.get_intensive():
            per_atom = model_pred["mask"].sum(dim=1, keepdim=True).to(predicted.dtype)
            predicted, target = predicted / per_atom, target / per_atom
        # The same scale for every type; type 0 stands for all.
        scale = model.atomic_model.out_std[0, 0]
        coefficient = learning_rate / self.starter_learning_rate
        pref = self.limit_pref + (self.start_pref - self.limit_pref) * coefficient
        loss = pref * distance(
            predicted, target, self.loss_func, scale=scale, beta=self.beta, reduction=self.reduction
        )
        more_loss = {
            name: distance(predicted.detach(), target, name, beta=self.beta) for name in self.metric
        }
        return model_pred, loss, more_loss

    def _check_head(self, model: torch.nn.Module) -> None:
        name, task_dim = model.get_var_name(), model.get_task_dim()
        if (name, task_dim) != (self.property_name, self.task_dim):
            raise UserError(
                f"the fitting net predicts property '{name}' with task_dim {task_dim}, its loss "
                f"expects '{self.property_name}' with task_dim {self.task_dim}: make "
                "property_name and task_dim of loss and fitting_net equal"
            )

    @property
    def label_requirement(self) -> list[DataRequirementItem]:
        """The labels to load: ``<property_name>.npy`` in every set."""
        return [
            DataRequirementItem(
                self.property_name, ndof=self.task_dim, atomic=False, must=True, high_prec=True
            )
        ]

    def serialize(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            "@class": "MFTPropertyLoss",
            "@version": 1,
            "property_name": self.property_name,
            "starter_learning_rate": self.starter_learning_rate,
            "task_dim": self.task_dim,
            "loss_func": self.loss_func,
            "beta": self.beta,
            "reduction": self.reduction,
            "start_pref": self.start_pref,
            "limit_pref": self.limit_pref,
            "metric": self.metric,
        }

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> MFTPropertyLoss:
        """Build the loss from :meth:`serialize`'s dict."""
        return cls(**{key: value for key, value in data.items() if not key.startswith("@")})


def distance(
    predicted: torch.Tensor,
    target: torch.Tensor,
    kind: str,
    *,
    scale: torch.Tensor | float = 1.0,
    beta: float = 1.0,
    reduction: str = "mean",
) -> torch.Tensor:
    """Return how far predictions are from their targets.

    Parameters
    ----------
    predicted, target : torch.Tensor
        nf x task_dim
    kind : {"mse", "mae", "smooth_mae", "rmse", "mape"}
    scale : torch.Tensor or float
        Unit of the difference, task_dim; not used by mape.
    beta : float
        Turning point of smooth_mae in units of the scale.
    reduction : {"mean", "sum"}
        Not used by rmse and mape, which are means.

    Returns
    -------
    torch.Tensor
        A scalar.
    """
    if kind == "mape":
        # deepmd-kit's guard against labels that are zero
        return ((target - predicted) / (target + 1e-3)).abs().mean()
    predicted, target = predicted / scale, target / scale
    if kind == "mse":
        return F.mse_loss(predicted, target, reduction=reduction)
    if kind == "mae":
        return F.l1_loss(predicted, target, reduction=reduction)
    if kind == "smooth_mae":
        return F.smooth_l1_loss(predicted, target, reduction=reduction, beta=beta)
    if kind == "rmse":
        return F.mse_loss(predicted, target).sqrt()
    raise UserError(f"unknown loss_func or metric '{kind}'")
