"""The loss ``mft_force_field`` of the auxiliary branch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deepmd.pt.loss.ener import EnergyStdLoss
from deepmd.pt.loss.loss import TaskLoss

if TYPE_CHECKING:
    import torch
    from deepmd.utils.data import DataRequirementItem


@TaskLoss.register("mft_force_field")
class MFTForceFieldLoss(EnergyStdLoss):
    """deepmd-kit's energy, force and virial loss times ``lambda_reg``.

    The regulariser of multi-task fine-tuning (MFT, arXiv 2601.08486, Eqs. 10 and 11).

    Parameters
    ----------
    starter_learning_rate : float
        Learning rate at the first step, for the prefactors' schedules.
    lambda_reg : float
        Weight of the whole loss.
    **kwargs
        Those of deepmd-kit's ``ener`` loss.
    """

    def __init__(
        self, starter_learning_rate: float = 1.0, lambda_reg: float = 1.0, **kwargs: Any
    ) -> None:
        super().__init__(starter_learning_rate=starter_learning_rate, **kwargs)
        self.lambda_reg = lambda_reg

    def forward(
        self,
        input_dict: dict[str, torch.Tensor],
        model: torch.nn.Module,
        label: dict[str, torch.Tensor],
        natoms: int,
        learning_rate: float,
        mae: bool = False,
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor, dict[str, torch.Tensor]]:
        """Return predictions, the weighted loss and deepmd-kit's metrics (not weighted)."""
        model_pred, loss, more_loss = super().forward(
            input_dict, model, label, natoms, learning_rate, mae
        )
        return model_pred, self.lambda_reg * loss, more_loss

    @property
    def label_requirement(self) -> list[DataRequirementItem]:
        """The labels to load; energy and force are required where their prefactors count.

        deepmd-kit's ``ener`` loss skips a term whose label file is absent. In an auxiliary branch
        that would quietly turn the regulariser off.
        """
        requirements = super().label_requirement
        for item in requirements:
            if item.key in ("energy", "force"):
                item.must = True
                item.dict = item.to_dict()
        return requirements

    def serialize(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            **super().serialize(),
            "@class": "MFTForceFieldLoss",
            "lambda_reg": self.lambda_reg,
        }

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> MFTForceFieldLoss:
        """Build the loss from :meth:`serialize`'s dict."""
        return cls(**{key: value for key, value in data.items() if not key.startswith("@")})
