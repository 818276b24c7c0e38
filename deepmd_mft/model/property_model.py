"""The model type ``mft``: a descriptor, a property head and its readout.

No ``from __future__ import annotations`` here: TorchScript reads the annotations.
"""

import copy
import json
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from deepmd.pt.model.atomic_model import DPPropertyAtomicModel
from deepmd.pt.model.model import PropertyModel
from deepmd.pt.model.model.model import BaseModel
from deepmd.utils.data_system import DeepmdDataSystem
from deepmd.utils.path import DPPath

from deepmd_mft.compat import standard_components
from deepmd_mft.errors import UserError
from deepmd_mft.model.output_statistics import OutputStatistics, fit_bias, fit_output_statistics

log = logging.getLogger(f"deepmd.{__name__}")  # below deepmd's logger, to share its handlers

#: More batches than any data set has: the statistics then see every training frame.
ALL_BATCHES = 2**31 - 1


class MFTPropertyAtomicModel(DPPropertyAtomicModel):
    """Per-atom property: the head's output times the scale plus the bias of the element."""

    def change_out_bias(
        self,
        sample_merged: Callable[[], list[dict]] | list[dict],
        stat_file_path: DPPath | None = None,
        bias_adjust_mode: str = "set-by-statistic",
    ) -> None:
        """Fit bias and scale to labels, or shift the bias by what the model leaves of them.

        Parameters
        ----------
        sample_merged : list of dict, or callable returning it
            One dict of tensors for each data system, as deepmd-kit samples them.
        stat_file_path : DPPath, optional
            Not used: reading the labels again is quicker than asking whether a cache is stale.
        bias_adjust_mode : {"set-by-statistic", "change-by-statistic"}
            ``set``: fit bias and scale to the labels. ``change``: keep the scale, and add to the
            bias a fit of the same kind to the difference of labels and predictions.
        """
        del stat_file_path
        systems = sample_merged() if callable(sample_merged) else sample_merged
        labels, counts = self._labels_and_counts(systems)
        net = self.fitting_net
        if bias_adjust_mode == "set-by-statistic":
            statistics = fit_output_statistics(
                labels, counts, readout=net.readout, bias=net.bias, property_name=net.var_name
            )
            self.out_bias[0].copy_(torch.as_tensor(statistics.bias))
            self.out_std[0].copy_(torch.as_tensor(statistics.scale).expand_as(self.out_std[0]))
            self._report(statistics, labels)
        else:
            predictions = np.concatenate([self._predict(system) for system in systems])
            shift = fit_bias(labels - predictions, counts, readout=net.readout, bias=net.bias)
            self.out_bias[0].add_(torch.as_tensor(shift).to(self.out_bias))
            log.info("property %s: bias shifted by at most %.3g", net.var_name, np.abs(shift).max())

    def _labels_and_counts(self, systems: list[dict]) -> tuple[np.ndarray, np.ndarray]:
        """Collect labels (nframes x task_dim, NaN if missing) and counts (nframes x ntypes)."""
        name, task_dim = self.fitting_net.var_name, self.fitting_net.dim_out
        excluded = list(self.atom_exclude_types)
        labels, counts = [], []
        for system in systems:
            natoms = system.get("real_natoms_vec", system["natoms"])
            count = natoms.detach().cpu().numpy()[:, 2:].copy()
            count[:, excluded] = 0
            counts.append(count)
            if name not in system:
                loaded = sorted(key[5:] for key in system if key.startswith("find_"))
                raise UserError(
                    f"the labels of property '{name}' were not loaded (loaded: "
                    f"{', '.join(loaded)}). In training, the loss of this branch must be of type "
                    "mft_property with the same property_name. `dp change-bias` loads no property "
                    "labels in deepmd-kit 3.2: to refit the bias on new data, fine-tune with "
                    "finetune_head set to this branch"
                )
            if not float(system.get(f"find_{name}", 1.0)):
                labels.append(np.full((len(count), task_dim), np.nan))
                continue
            label = system[name].detach().cpu().numpy().reshape(len(count), -1)
            if label.shape[1] != task_dim:
                raise UserError(
                    f"property '{name}': the labels have {label.shape[1]} component(s), the "
                    f"fitting net has task_dim {task_dim}; make task_dim of fitting net and loss "
                    "equal to the columns of the label file"
                )
            labels.append(label)
        return np.concatenate(labels), np.concatenate(counts)

    def _predict(self, system: dict) -> np.ndarray:
        """Return what the model predicts for the frames of a system (nframes x task_dim)."""
        name = self.fitting_net.var_name
        forward = self._get_forward_wrapper_func()
        predictions = []
        for frame in range(len(system["coord"])):
            part = slice(frame, frame + 1)
            inputs = {
                key: system[key][part] if system.get(key) is not None else None
                for key in ("coord", "atype", "box", "fparam", "aparam")
                if key in system
            }
            output = forward(inputs.pop("coord"), inputs.pop("atype"), inputs.pop("box"), **inputs)
            value = readout(output[name], output["mask"], self.fitting_net.readout)
            predictions.append(value.cpu().numpy())
        return np.concatenate(predictions)

    def _report(self, statistics: OutputStatistics, labels: np.ndarray) -> None:
        net = self.fitting_net
        log.info(
            "property %s: bias %s and scale %s from %d frames",
            net.var_name,
            net.bias,
            np.array2string(statistics.scale, precision=4),
            int(np.isfinite(labels).any(axis=1).sum()),
        )
        unseen = [self.type_map[i] for i in np.flatnonzero(statistics.unseen)]
        if unseen and net.bias == "element":
            shown = ", ".join(unseen) if len(unseen) <= 20 else f"{len(unseen)} of the type map"
            log.warning(
                "property %s: elements without a training frame get the bias of an average "
                "element: %s",
                net.var_name,
                shown,
            )

    # TorchScript needs the annotation in the class that it compiles.
    exclude_types: list[int]


def readout(atomic: torch.Tensor, mask: torch.Tensor, kind: str) -> torch.Tensor:
    """Reduce per-atom outputs to the property of a frame.

    Parameters
    ----------
    atomic : torch.Tensor
        nf x nloc x task_dim, zero for padding atoms.
    mask : torch.Tensor
        nf x nloc, 1 for real atoms.
    kind : {"mean", "sum", "max"}

    Returns
    -------
    torch.Tensor
        nf x task_dim
    """
    if kind == "max":
        return atomic.masked_fill(mask.unsqueeze(-1) == 0, -float("inf")).amax(dim=1)
    total = atomic.sum(dim=1)
    if kind == "mean":
        return total / mask.sum(dim=1, keepdim=True).to(total.dtype)
    return total


@BaseModel.register("mft")
class MFTModel(PropertyModel):
    """A property model whose head is one of this package's.

    To ``dp test`` and ``DeepEval`` it is a property model: ``get_var_name``, ``get_task_dim`` and
    ``get_intensive`` are those of the head. Frozen, it runs in a deepmd-kit without this package.
    """

    model_type = "mft"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.readout: str = self.atomic_model.fitting_net.readout

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
        """
        params = copy.deepcopy(model_params)
        if params.get("preset_out_bias"):
            raise UserError(
                "preset_out_bias is not used by models of type mft: set `bias` of the fitting net"
            )
        descriptor, fitting_net = standard_components(params)
        model = cls(
            atomic_model_=MFTPropertyAtomicModel(
                descriptor,
                fitting_net,
                type_map=params["type_map"],
                atom_exclude_types=params.get("atom_exclude_types", []),
                pair_exclude_types=params.get("pair_exclude_types", []),
                data_stat_protect=params.get("data_stat_protect", 1e-2),
            )
        )
        model.model_def_script = json.dumps(model_params)
        return model

    @classmethod
    def update_sel(
        cls, train_data: DeepmdDataSystem, type_map: list[str] | None, local_jdata: dict
    ) -> tuple[dict, float | None]:
        """Update the descriptor's neighbour selection, and let statistics see all frames.

        deepmd-kit takes output statistics from ``data_stat_nbatch`` batches of each system, 10 by
        default; bias and scale of a property want the whole training set.
        """
        params, min_nbor_dist = super().update_sel(train_data, type_map, local_jdata)
        return {**params, "data_stat_nbatch": ALL_BATCHES}, min_nbor_dist

    def change_out_bias(self, merged: Any, bias_adjust_mode: str = "change-by-statistic") -> None:
        """Fit or shift bias and scale: :meth:`MFTPropertyAtomicModel.change_out_bias`."""
        self.atomic_model.change_out_bias(merged, bias_adjust_mode=bias_adjust_mode)

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
        """Predict the property of frames.

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
            ``<property_name>`` nf x task_dim, ``atom_<property_name>`` nf x nloc x task_dim,
            ``mask`` nf x nloc.
        """
        output = self.forward_common(
            coord,
            atype,
            box,
            fparam=fparam,
            aparam=aparam,
            do_atomic_virial=do_atomic_virial,
            charge_spin=charge_spin,
        )
        return self._name_outputs(output)

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
        return self._name_outputs(output)

    def _name_outputs(self, output: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        name = self.get_var_name()
        mask = output["mask"]
        named = {f"atom_{name}": output[name], "mask": mask}
        if self.readout == "max":
            named[name] = readout(output[name], mask, self.readout)
        else:
            named[name] = output[f"{name}_redu"]  # deepmd-kit's own sum or mean, in float64
        return named
