"""The model type ``mft``: a descriptor, one of this package's heads, and the head's readout.

No ``from __future__ import annotations`` here: TorchScript reads the annotations.
"""

import copy
import json
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from deepmd.dpmodel import OutputVariableDef
from deepmd.pt.model.model import PropertyModel
from deepmd.pt.model.model.model import BaseModel
from deepmd.pt.model.task.base_fitting import BaseFitting

from deepmd_mft.bridge.descriptors import is_of_type
from deepmd_mft.bridge.models import build_descriptor
from deepmd_mft.bridge.training import all_batches
from deepmd_mft.errors import UserError
from deepmd_mft.models.atomic_model import MFTAtomicModel

log = logging.getLogger(f"deepmd.{__name__}")  # below deepmd's logger, to share its handlers

#: Frames whose predictions shift the bias of an inherited head. Labels are read of all frames;
#: predictions of 50,000 molecules would take minutes.
MOST_PREDICTED = 5_000
#: The model of each head, by the type of its fitting net.
HEADS: dict[str, type["MFTModel"]] = {}


def register_head(fitting_type: str) -> Callable[[type["MFTModel"]], type["MFTModel"]]:
    """Register the model class that belongs to a fitting net."""

    def register(model_class: type["MFTModel"]) -> type["MFTModel"]:
        HEADS[fitting_type] = model_class
        return model_class

    return register


def embedding_width(descriptor: torch.nn.Module) -> int:
    """Return the number of equivariant vectors (rot_mat) of a descriptor; 0 if it has none."""
    try:
        return int(descriptor.get_dim_emb())
    except NotImplementedError:
        return 0


@BaseModel.register("mft")
class MFTModel(PropertyModel):
    """A property model whose head is one of this package's.

    To ``dp test`` and ``DeepEval`` it is a property model: ``get_var_name``, ``get_task_dim`` and
    ``get_intensive`` are those of the head's first property. Frozen, it runs in a deepmd-kit
    without this package.
    """

    model_type = "mft"
    property_names: list[str]
    property_dims: list[int]
    is_intensive: list[bool]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        net = self.atomic_model.fitting_net
        self.property_names = net.property_names
        self.property_dims = net.property_dims()
        self.is_intensive = net.is_intensive

    def __prepare_scriptable__(self) -> "MFTModel":
        """Refuse what TorchScript cannot compile: ``dp freeze`` comes here first."""
        if is_of_type(self.atomic_model.descriptor, "dpa4"):
            raise UserError(
                "DeePMD-kit 3.2 freezes energy models on DPA-4 only, and no property model; give "
                "the checkpoint itself, model.pt, to `dp --pt test --head` and `dp-mft evaluate`"
            )
        return self

    @classmethod
    def get_model(cls, model_params: dict[str, Any]) -> "MFTModel":
        """Build the model that a branch's JSON describes.

        Parameters
        ----------
        model_params : dict
            The normalised JSON of the branch.

        Returns
        -------
        MFTModel
            Of the class that belongs to the fitting net's type.

        Raises
        ------
        UserError
            If the head cannot be built, or the descriptor lacks what it needs.
        """
        params = copy.deepcopy(model_params)
        fitting_type = params["fitting_net"].get("type", "")
        if fitting_type not in HEADS:
            raise UserError(
                f"a model of type mft has no fitting_net of type '{fitting_type}'; there are "
                f"{', '.join(HEADS)}"
            )
        if params.get("preset_out_bias"):
            raise UserError(
                "preset_out_bias is not used by models of type mft: set `bias` of the fitting net"
            )
        type_map = params["type_map"]
        model_class = HEADS[fitting_type]
        descriptor = build_descriptor(params["descriptor"], type_map)
        model_class.check_descriptor(descriptor, params["fitting_net"])
        fitting_net = BaseFitting(
            **{
                **params["fitting_net"],
                "ntypes": descriptor.get_ntypes(),
                "type_map": list(type_map),
                "mixed_types": descriptor.mixed_types(),
                "dim_descrpt": descriptor.get_dim_out(),
                "embedding_width": embedding_width(descriptor),
            }
        )
        model = model_class(
            atomic_model_=model_class.atomic_model_class()(
                descriptor,
                fitting_net,
                type_map=type_map,
                atom_exclude_types=params.get("atom_exclude_types", []),
                pair_exclude_types=params.get("pair_exclude_types", []),
                data_stat_protect=params.get("data_stat_protect", 1e-2),
            )
        )
        model.model_def_script = json.dumps(model_params)
        return model

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> torch.nn.Module:
        """Build the model that :meth:`serialize` wrote: deepmd-kit's own of type ``property``."""
        return BaseModel.deserialize(data)

    @classmethod
    def atomic_model_class(cls) -> type[MFTAtomicModel]:
        """Return the class of the per-atom model."""
        return MFTAtomicModel

    @classmethod
    def check_descriptor(cls, descriptor: torch.nn.Module, fitting_net: dict[str, Any]) -> None:
        """Raise UserError if the descriptor lacks what the head needs; most need nothing more."""

    def change_out_bias(self, merged: Any, bias_adjust_mode: str = "change-by-statistic") -> None:
        """Fit bias and scale to labels, or shift the bias by what the model leaves of them.

        Parameters
        ----------
        merged : list of dict, or callable returning it
            One dict of tensors for each data system, as deepmd-kit samples them.
        bias_adjust_mode : {"set-by-statistic", "change-by-statistic"}
            ``set``: fit bias and scale to the labels. ``change``: keep the scale, and add to the
            bias a fit of the same kind to labels minus predictions, of :data:`MOST_PREDICTED`
            frames if there are more (of a group, those drawn stand for all).
        """
        if bias_adjust_mode == "set-by-statistic":
            self.atomic_model.change_out_bias(merged)
            return
        sample = merged() if callable(merged) else merged
        atomic, net = self.atomic_model, self.atomic_model.fitting_net
        data = atomic.collect(all_batches(sample, most=MOST_PREDICTED), self._predict)
        for number, name in enumerate(net.property_names):
            one_each = data.of_groups(number, intensive=net.is_intensive[number])
            shift = net.fit_shift(number, *one_each)
            dim = shift.shape[1]
            atomic.out_bias[number, :, :dim] += torch.as_tensor(shift).to(atomic.out_bias)
            log.info("property %s: bias shifted by at most %.3g", name, np.abs(shift).max())

    def _predict(self, batch: dict) -> dict[str, np.ndarray]:
        """Return the predictions for the frames of a batch, nf x dim for each property."""
        inputs = {}
        for key in ("coord", "atype", "box", "fparam", "aparam", "charge_spin"):
            given = batch.get(key) is not None and float(batch.get(f"find_{key}", 1.0))
            inputs[key] = batch[key].to(self.atomic_model.out_bias.device) if given else None
        with torch.no_grad():
            output = self(**inputs)
        return {name: output[name].cpu().numpy() for name in self.property_names}

    def label_scale(self, name: str) -> torch.Tensor:
        """Return the unit in which a loss measures a property, one value a component.

        In the unit of the label (per atom if extensive).
        """
        for number, known in enumerate(self.property_names):
            if known == name:
                return self.atomic_model.out_std[number, 0, : self.property_dims[number]]
        raise RuntimeError("no such property")

    def reduce(
        self, output: dict[str, torch.Tensor], coord: torch.Tensor, atype: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Make the properties of frames from per-atom outputs.

        Parameters
        ----------
        output : dict of torch.Tensor
            The head's variables, nf x nloc x dim, zero for padding; ``<name>_redu`` for those of
            the properties, summed or averaged; ``mask``, nf x nloc.
        coord : torch.Tensor
            nf x nloc x 3, in Angstrom.
        atype : torch.Tensor
            nf x nloc; -1 marks padding.

        Returns
        -------
        dict of torch.Tensor
            ``<property_name>`` nf x dim and ``atom_<property_name>`` nf x nloc x dim.
        """
        raise NotImplementedError

    def forward(
        self,
        coord: torch.Tensor,
        atype: torch.Tensor,
        box: torch.Tensor | None = None,
        fparam: torch.Tensor | None = None,
        aparam: torch.Tensor | None = None,
        do_atomic_virial: bool = False,
        charge_spin: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Predict the properties of frames.

        Parameters
        ----------
        coord : torch.Tensor
            nf x (nloc x 3), in Angstrom.
        atype : torch.Tensor
            nf x nloc; -1 marks padding.
        box : torch.Tensor, optional
            nf x 9, in Angstrom.
        fparam, aparam, charge_spin : torch.Tensor, optional
            Frame parameters nf x ndf, atomic parameters nf x nloc x nda, charge and spin nf x 2.
        do_atomic_virial : bool
            deepmd-kit passes it; a property has no virial.

        Returns
        -------
        dict of torch.Tensor
            ``<property_name>`` nf x dim, ``atom_<property_name>`` nf x nloc x dim, ``mask``
            nf x nloc.
        """
        self.check_box(box)
        output = self.forward_common(
            coord,
            atype,
            box,
            fparam=fparam,
            aparam=aparam,
            do_atomic_virial=do_atomic_virial,
            charge_spin=charge_spin,
        )
        named = self.reduce(output, coord.view(atype.shape[0], -1, 3), atype)
        named["mask"] = output["mask"]
        return named

    def translated_output_def(self) -> dict[str, OutputVariableDef]:
        """Return the definition of everything that :meth:`forward` gives."""
        data = self.model_output_def().get_data()
        defined: dict[str, OutputVariableDef] = {}
        for name, dim in zip(self.property_names, self.property_dims, strict=True):
            atomic, frame = data[name], data[f"{name}_redu"]
            defined[f"atom_{name}"] = OutputVariableDef(
                f"atom_{name}", [dim], reducible=True, intensive=atomic.intensive
            )
            defined[name] = OutputVariableDef(name, [dim], atomic=False, category=frame.category)
        defined["mask"] = data["mask"]
        return defined

    def check_box(self, box: torch.Tensor | None) -> None:
        """Raise if the head has no meaning in a periodic cell; most do."""

    def check_ghosts(self, ghost_types: torch.Tensor) -> None:
        """Raise if the head has no meaning with atoms outside the frame; most do."""

    @torch.jit.export
    def forward_lower(
        self,
        extended_coord: torch.Tensor,
        extended_atype: torch.Tensor,
        nlist: torch.Tensor,
        mapping: torch.Tensor | None = None,
        fparam: torch.Tensor | None = None,
        aparam: torch.Tensor | None = None,
        do_atomic_virial: bool = False,
        comm_dict: dict[str, torch.Tensor] | None = None,
        charge_spin: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Predict from extended coordinates and a neighbour list (the C++ interface)."""
        output = self.forward_common_lower(
            extended_coord,
            extended_atype,
            nlist,
            mapping,
            fparam=fparam,
            aparam=aparam,
            do_atomic_virial=do_atomic_virial,
            comm_dict=comm_dict,
            extra_nlist_sort=self.need_sorted_nlist_for_lower(),
            charge_spin=charge_spin,
        )
        nf, nloc = nlist.shape[0], nlist.shape[1]
        self.check_ghosts(extended_atype[:, nloc:])
        coord = extended_coord.view(nf, -1, 3)[:, :nloc]
        named = self.reduce(output, coord, extended_atype[:, :nloc])
        named["mask"] = output["mask"]
        return named
