"""What all losses of this package share: a batch, the terms of a loss, their sum.

How to add a loss
-----------------
1. Subclass :class:`MFTLoss` (or :class:`.LabelLoss`, which reads the labels of a property and keeps
   ``missing_labels``), and put ``@TaskLoss.register("mft_<name>")`` above it.
2. Store the constructor's arguments in ``self.arguments``.
3. Write ``terms(batch)``: one :class:`Term` per summand, with the columns that it shows.
4. Write ``label_requirement``, the files to load.
5. List its options in :mod:`deepmd_mft.schema` and the class in ``training/losses/__init__.py``.

A regulariser is one more term, without a label: see :mod:`deepmd_mft.training.regularizers.base`.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from deepmd.pt.loss.loss import TaskLoss

from deepmd_mft.backbones.edge_dropout import dropping_edges
from deepmd_mft.errors import UserError
from deepmd_mft.training.regularizers.base import watch_descriptor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from deepmd_mft.training.regularizers.base import Regularizer, Representation


@dataclass(frozen=True)
class Batch:
    """What a loss is made from.

    Attributes
    ----------
    inputs : dict of torch.Tensor
        Inputs of the model: ``coord`` nf x (nloc x 3), ``atype`` nf x nloc, ``box``, ...
    label : dict of torch.Tensor
        The labels, and ``find_<name>``: whether the system has the label.
    model : torch.nn.Module
        The model of the branch.
    prediction : dict of torch.Tensor
        What the model gives for the inputs.
    natoms : int
        Atoms of a frame, padding included.
    learning_rate : float
        The current learning rate.
    """

    inputs: dict[str, Any]
    label: dict[str, torch.Tensor]
    model: Any
    prediction: dict[str, torch.Tensor]
    natoms: int
    learning_rate: float


@dataclass(frozen=True)
class Term:
    """One summand of a loss.

    Attributes
    ----------
    name : str
        For messages.
    value : torch.Tensor
        A scalar.
    weight : float
        What it is multiplied by in the sum.
    columns : dict of torch.Tensor
        What ``lcurve.out`` shows of it, not weighted. NaN says that a batch has no value. Never
        hand out such a NaN as ``rmse``: deepmd-kit takes it for a training that went wrong, and
        stops.
    """

    name: str
    value: torch.Tensor
    weight: float = 1.0
    columns: dict[str, torch.Tensor] = field(default_factory=dict)


class MFTLoss(TaskLoss):
    """A sum of weighted terms, regularisers included.

    Attributes
    ----------
    arguments : dict
        The constructor's arguments, from which an equal loss can be built.
    regularizers : list of Regularizer
        Terms that look at the model and not at labels (:mod:`deepmd_mft.training.regularizers`).
    edge_dropout : float
        Share of the edges that are dropped while training (:mod:`deepmd_mft.backbones`).
    """

    arguments: dict[str, Any]
    regularizers: Sequence[Regularizer] = ()
    edge_dropout: float = 0.0

    @classmethod
    def options_of_head(cls, model: Any, options: dict[str, Any]) -> dict[str, Any]:
        """Return options which the model of the branch gives a loss that leaves them out.

        Parameters
        ----------
        model : torch.nn.Module
            The model of the branch.
        options : dict
            The JSON of the loss, without what was left out.
        """
        del model, options
        return {}

    def check_model(self, model: Any) -> None:
        """Raise UserError if the loss and the model of the branch do not belong together."""

    def terms(self, batch: Batch) -> Iterable[Term]:
        """Return the summands of the loss."""
        raise NotImplementedError

    def forward(
        self,
        input_dict: dict[str, torch.Tensor],
        model: torch.nn.Module,
        label: dict[str, torch.Tensor],
        natoms: int,
        learning_rate: float = 0.0,
        mae: bool = False,
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor, dict[str, torch.Tensor]]:
        """Predict a batch and add up the terms.

        Parameters
        ----------
        input_dict : dict of torch.Tensor
            Inputs of the model.
        model : torch.nn.Module
            The model of the branch.
        label : dict of torch.Tensor
            Labels of the batch.
        natoms : int
            Atoms of a frame, padding included.
        learning_rate : float
            The current learning rate.
        mae : bool
            deepmd-kit's losses take it for display; not used.

        Returns
        -------
        model_pred : dict of torch.Tensor
        loss : torch.Tensor
            A scalar.
        more_loss : dict of torch.Tensor
            The columns of all terms.
        """
        del mae
        self.check_model(model)
        looked_at = any(one.needs_representation for one in self.regularizers)
        nothing: AbstractContextManager[list[Representation]] = nullcontext([])
        watched = watch_descriptor(model) if looked_at else nothing
        with dropping_edges(model, self.edge_dropout), watched as seen:
            model_pred = model(**input_dict)
        batch = Batch(input_dict, label, model, model_pred, natoms, learning_rate)
        loss = torch.zeros((), dtype=torch.float64, device=input_dict["coord"].device)
        more_loss: dict[str, torch.Tensor] = {}
        for term in chain(self.terms(batch), self._regularize(batch, seen)):
            _stop_if_nan(term)
            loss = loss + term.weight * term.value
            # deepmd-kit leaves columns with l2_ in their name out of lcurve.out
            more_loss |= {name.replace("l2_", "l2-"): shown for name, shown in term.columns.items()}
        return model_pred, loss, more_loss

    def _regularize(self, batch: Batch, seen: list[Representation]) -> Iterator[Term]:
        """Return one term per regulariser, with a column of its name."""
        for one in self.regularizers:
            value = one.value(batch, seen[0] if one.needs_representation else None)
            yield Term(one.type, value, one.weight, {one.type: value.detach()})

    def serialize(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"@class": type(self).__name__, "@version": 1, **self.arguments}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> MFTLoss:
        """Build the loss from :meth:`serialize`'s dict."""
        return cls(**{key: value for key, value in data.items() if not key.startswith("@")})


def with_options_of_head(loss_params: dict[str, Any], model: Any) -> dict[str, Any]:
    """Return the JSON of a loss with what the model of its branch says instead of what is left out.

    Parameters
    ----------
    loss_params : dict
        The normalised JSON of any loss.
    model : torch.nn.Module
        The model of the branch.
    """
    if "type" not in loss_params and hasattr(model, "property_names"):
        # `dp change-bias` asks for an energy loss whatever the model, to know the labels to load
        classes = hasattr(model.atomic_model.fitting_net, "num_classes")
        loss_params = {
            "type": "mft_classification" if classes else "mft_property",
            "missing_labels": "mask",
        }
    loss_class = TaskLoss.get_plugins().get(loss_params.get("type", ""))
    if loss_class is None or not issubclass(loss_class, MFTLoss):
        return loss_params
    given = {key: value for key, value in loss_params.items() if value is not None}
    return {**loss_class.options_of_head(model, given), **given}


def _stop_if_nan(term: Term) -> None:
    """Stop a training that went wrong; deepmd-kit looks at a column called ``rmse`` only."""
    if torch.isnan(term.value):
        raise UserError(
            f"the loss ({term.name}) is NaN: the training went wrong, and it is meaningless to "
            "continue. Lower learning_rate/start_lr, or set training/gradient_max_norm; if it "
            "happens in the first steps, look for broken structures (atoms on one another)"
        )
