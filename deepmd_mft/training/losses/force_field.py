"""The loss ``mft_force_field`` of the auxiliary branch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from deepmd.pt.loss.ener import EnergyStdLoss
from deepmd.pt.loss.loss import TaskLoss

from deepmd_mft.errors import UserError
from deepmd_mft.training.losses.base import MFTLoss, Term

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deepmd.utils.data import DataRequirementItem

    from deepmd_mft.training.losses.base import Batch


@TaskLoss.register("mft_force_field")
class MFTForceFieldLoss(MFTLoss, EnergyStdLoss):
    """deepmd-kit's energy, force and virial loss times ``lambda_reg``.

    The regulariser of multi-task fine-tuning (MFT, arXiv 2601.08486, Eqs. 10 and 11). With
    ``force_reduction: structure`` the force term is JMP's (arXiv 2310.16802, section 4.2): the mean
    over the atoms of a structure, then over the structures of the batch, so that the many atoms of
    a large structure do not outweigh a small one.

    Parameters
    ----------
    starter_learning_rate : float
        Learning rate at the first step, for the prefactors' schedules.
    lambda_reg : float
        Weight of the whole loss.
    force_reduction : {"atom", "structure"}
        ``atom`` is deepmd-kit's mean over all atoms of a batch.
    energy_scale, force_scale : float
        Units (eV and eV/Angstrom) in which the differences are measured: the spread of a data
        set's energies beyond its linear reference, and the rms of its forces (JMP, section 4.1).
    edge_dropout : float
        Share of the edges that are dropped while training (JMP, section 4.3).
    **kwargs
        Those of deepmd-kit's ``ener`` loss.
    """

    def __init__(
        self,
        starter_learning_rate: float = 1.0,
        lambda_reg: float = 1.0,
        force_reduction: str = "atom",
        energy_scale: float = 1.0,
        force_scale: float = 1.0,
        edge_dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        self.edge_dropout = edge_dropout
        self.lambda_reg = lambda_reg
        self.force_reduction = force_reduction
        self.arguments = {
            "starter_learning_rate": starter_learning_rate,
            "lambda_reg": lambda_reg,
            "force_reduction": force_reduction,
            "energy_scale": energy_scale,
            "force_scale": force_scale,
            "edge_dropout": edge_dropout,
            **kwargs,
        }
        super().__init__(
            starter_learning_rate=starter_learning_rate,
            **in_units_of(kwargs, energy_scale, force_scale),
        )
        if force_reduction == "structure" and (self.has_pf or self.has_gf or self.relative_f):
            raise UserError(
                "force_reduction: structure goes with the plain force term; remove the atom_pref, "
                "generalized and relative force options, or set force_reduction: atom"
            )

    def terms(self, batch: Batch) -> Iterator[Term]:
        """Return deepmd-kit's loss times ``lambda_reg``, with its columns (not weighted)."""
        _, loss, columns = EnergyStdLoss.forward(
            self,
            batch.inputs,
            lambda **_: batch.prediction,
            batch.label,
            batch.natoms,
            batch.learning_rate,
        )
        if self.force_reduction == "structure" and self.has_f and batch.label.get("find_force"):
            loss = loss + self._structure_wise(batch)
        yield Term("force field", loss, self.lambda_reg, columns)

    def _structure_wise(self, batch: Batch) -> torch.Tensor:
        """Return the force term's mean over structures minus that over atoms."""
        coefficient = batch.learning_rate / self.starter_learning_rate
        pref = self.limit_pref_f + (self.start_pref_f - self.limit_pref_f) * coefficient
        mask = batch.prediction["mask"]
        per_atom = self._force_distance(batch.prediction["force"], batch.label["force"], mask)
        per_structure = per_atom.sum(dim=1) / mask.sum(dim=1)
        return pref * (per_structure.mean() - per_atom.sum() / mask.sum())

    def _force_distance(
        self, predicted: torch.Tensor, target: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """Return what each atom contributes to deepmd-kit's force loss, nf x nloc."""
        difference = (predicted - target).reshape(*mask.shape, 3)
        if self.f_use_norm:
            difference = torch.linalg.vector_norm(difference, dim=-1, keepdim=True)
        if self.use_huber:
            delta = self._huber_delta_force
            size = difference.abs()
            error = torch.where(size <= delta, 0.5 * size**2, delta * (size - 0.5 * delta))
        elif self.loss_func == "mse":
            error = difference.square()
        else:
            error = difference.abs()
        return error.mean(dim=-1) * mask

    @property
    def label_requirement(self) -> list[DataRequirementItem]:
        """The labels to load; every label whose prefactor counts is required.

        deepmd-kit's ``ener`` loss skips a term whose label file is absent. In an auxiliary branch
        that would quietly turn the regulariser off.
        """
        requirements = EnergyStdLoss.label_requirement.fget(self)
        for item in requirements:
            # relative_f alone asks for forces that no prefactor weighs
            weighed = item.key != "force" or self.has_f or self.has_pf or self.has_gf
            # the policy `default` says what stands for an absent file
            if weighed and item.source_policy == "tracked":
                item.must = True
                item.dict = item.to_dict()
        return requirements


def in_units_of(options: dict[str, Any], energy_scale: float, force_scale: float) -> dict[str, Any]:
    """Return ``ener`` options that measure differences in other units.

    Dividing a difference by a scale s divides a squared or Huber term by s^2 (with the Huber delta
    multiplied by s) and an absolute one by s; so prefactors and deltas say it all. The virial is an
    energy.
    """
    if energy_scale == 1.0 and force_scale == 1.0:
        return options
    power = 2 if options.get("loss_func", "mse") == "mse" else 1
    scaled = dict(options)
    for term, scale in (("e", energy_scale), ("f", force_scale), ("v", energy_scale)):
        for end in ("start", "limit"):
            key = f"{end}_pref_{term}"
            if key in scaled:
                scaled[key] = scaled[key] / scale**power
    delta = options.get("huber_delta", 0.01)
    deltas = list(delta) if isinstance(delta, (list, tuple)) else [delta] * 3
    scales = (energy_scale, force_scale, energy_scale)
    scaled["huber_delta"] = [d * s for d, s in zip(deltas, scales, strict=True)]
    return scaled
