"""The per-atom model of the heads: bias and scale, fitted to the labels of all frames.

No ``from __future__ import annotations`` here: TorchScript reads the annotations.
"""

import logging
from collections.abc import Callable, Iterator

import numpy as np
import torch
from deepmd.pt.model.atomic_model import DPPropertyAtomicModel
from deepmd.utils.path import DPPath

from deepmd_mft.bridge.reading import groups_in, label_or_nan
from deepmd_mft.bridge.training import all_batches
from deepmd_mft.errors import UserError
from deepmd_mft.files.cache import content_key, remembered
from deepmd_mft.models.statistics import OutputStatistics, StatisticsData
from deepmd_mft.names import GROUP
from deepmd_mft.structures.groups import number_groups

log = logging.getLogger(f"deepmd.{__name__}")  # below deepmd's logger, to share its handlers


class MFTAtomicModel(DPPropertyAtomicModel):
    """Per-atom outputs of a head: the net's times the scale plus the bias of the element."""

    def change_out_bias(
        self,
        sample_merged: Callable[[], list[dict]] | list[dict],
        stat_file_path: DPPath | None = None,
        bias_adjust_mode: str = "set-by-statistic",
    ) -> None:
        """Fit bias and scale of every property to the labels.

        Parameters
        ----------
        sample_merged : list of dict, or callable returning it
            One dict of tensors for each data system, as deepmd-kit samples them.
        stat_file_path : DPPath, optional
            Not used: what is read from the labels is kept by the content of the data
            (:mod:`deepmd_mft.files.cache`).
        bias_adjust_mode : str
            Only ``set-by-statistic``; the other needs a :class:`~.mft_model.MFTModel`.
        """
        del stat_file_path, bias_adjust_mode
        sample = sample_merged() if callable(sample_merged) else sample_merged
        data = self._collect_or_remember(sample)
        intensive = self.fitting_net.is_intensive
        for number, name in enumerate(self.fitting_net.property_names):
            labels, counts, weights = data.of_groups(number, intensive=intensive[number])
            statistics = self.fitting_net.fit_statistics(number, labels, counts, weights)
            dim = statistics.bias.shape[1]
            self.out_bias[number, :, :dim] = torch.as_tensor(statistics.bias)
            self.out_std[number, :, :dim] = torch.as_tensor(statistics.scale)
            self._report(name, statistics, labels, len(data.groups))

    def _collect_or_remember(self, sample: list[dict]) -> StatisticsData:
        """Collect from all frames, or take what an earlier run collected from the same data."""
        names = self.fitting_net.property_names
        key = None
        systems = getattr(sample, "systems", None)
        if systems:
            arrays = ["coord", "box", "real_atom_types", GROUP, *names]
            head = [type(self).__qualname__, names, self.fitting_net.label_dims, self.type_map]
            frames = [self.atom_exclude_types, getattr(sample, "min_pair_dist", 0.0)]
            key = content_key(systems, arrays, head, frames)

        def compute() -> dict[str, np.ndarray]:
            data = self.collect(all_batches(sample, [*names, GROUP, *self.arrays_of_weights()]))
            values = {f"value_{number}": value for number, value in enumerate(data.values)}
            return {
                **values,
                "counts": data.counts,
                "weights": data.weights,
                "groups": data.groups,
            }

        found = remembered("label_statistics", key, compute)
        values = [found[f"value_{number}"] for number in range(len(names))]
        return StatisticsData(values, found["counts"], found["weights"], found["groups"])

    def change_type_map(
        self, type_map: list[str], model_with_new_type_stat: torch.nn.Module | None = None
    ) -> None:
        """Take another type map; elements that are new get the scale and an average bias.

        deepmd-kit gives them a bias of 0 and a scale of 1, in whatever unit the labels are.

        Parameters
        ----------
        type_map : list of str
            The elements.
        model_with_new_type_stat : torch.nn.Module, optional
            Whose descriptor has statistics of new elements.
        """
        old, bias, scale = self.type_map, self.out_bias.mean(dim=1), self.out_std[:, 0]
        super().change_type_map(type_map, model_with_new_type_stat)
        for number, name in enumerate(type_map):
            if name not in old:
                self.out_bias[:, number], self.out_std[:, number] = bias, scale

    def collect(
        self,
        batches: Iterator[dict],
        predict: Callable[[dict], dict[str, np.ndarray]] | None = None,
    ) -> StatisticsData:
        """Read labels and compositions of all frames; nothing else of them is kept.

        Parameters
        ----------
        batches : iterator of dict
            Frames as deepmd-kit reads them.
        predict : callable, optional
            Gives the predictions for a batch by property, which are taken off the labels.
        """
        counts, weights, groups, systems = [], [], [], []
        values: list[list[np.ndarray]] = [[] for _ in self.fitting_net.property_names]
        for batch in batches:
            counts.append(self.count_types(batch))
            weights.append(self.bias_weights(batch))
            groups.append(groups_in(batch, len(counts[-1])).cpu().numpy())
            systems.append(np.full(len(counts[-1]), batch["sid"]))
            predicted = predict(batch) if predict is not None else {}
            for number, name in enumerate(self.fitting_net.property_names):
                labels = self.read_labels(batch, number)
                values[number].append(labels - predicted.get(name, 0.0))
        return StatisticsData(
            [np.concatenate(value) for value in values],
            np.concatenate(counts),
            np.concatenate(weights),
            number_groups(np.concatenate(groups), np.concatenate(systems)),
        )

    def count_types(self, system: dict) -> np.ndarray:
        """Return the atoms of each type in each frame of a system, nframes x ntypes."""
        natoms = system.get("real_natoms_vec", system["natoms"])
        given = natoms.detach().cpu().numpy()[:, 2:].astype(np.float64)
        # A system without type_map.raw counts up to its own largest type only.
        counts = np.zeros((len(given), self.get_ntypes()))
        counts[:, : given.shape[1]] = given
        counts[:, list(self.atom_exclude_types)] = 0
        return counts

    def bias_weights(self, system: dict) -> np.ndarray:
        """Return how much the bias of each type counts in each frame, nframes x ntypes."""
        return self.count_types(system)

    def arrays_of_weights(self) -> list[str]:
        """List what :meth:`bias_weights` reads of a frame beside its types."""
        return []

    def read_labels(self, system: dict, number: int) -> np.ndarray:
        """Return the labels of one property, nframes x label dimension, NaN where missing."""
        name = self.fitting_net.property_names[number]
        label_dim = self.fitting_net.label_dims[number]
        if name not in system:
            loaded = sorted(key[5:] for key in system if key.startswith("find_"))
            raise UserError(
                f"the labels of property '{name}' were not loaded (loaded: {', '.join(loaded)}). "
                "The loss of this branch must be one of this package's with the same property_name"
            )
        labels = label_or_nan(system, name).detach().cpu().numpy()
        if labels.shape[1] != label_dim:
            raise UserError(
                f"property '{name}': the labels have {labels.shape[1]} component(s), the head "
                f"expects {label_dim}; make task_dim of fitting_net and loss equal to the columns "
                "of the label file"
            )
        if np.isinf(labels).any():
            raise UserError(
                f"property '{name}': a training label is infinite; mend it, or remove the frame"
            )
        return labels

    def _report(
        self, name: str, statistics: OutputStatistics, labels: np.ndarray, nframes: int
    ) -> None:
        log.info(
            "property %s: scale %s, from %d labelled %s of %d",
            name,
            np.array2string(statistics.scale, precision=4),
            int(np.isfinite(labels).any(axis=1).sum()),
            "frames" if len(labels) == nframes else f"groups of {nframes} frames",
            len(labels),
        )
        unseen = [self.type_map[i] for i in np.flatnonzero(statistics.unseen)]
        if unseen and np.ptp(statistics.bias, axis=0).any():
            shown = ", ".join(unseen) if len(unseen) <= 20 else f"{len(unseen)} of the type map"
            log.warning(
                "property %s: elements without a training frame get the bias of an average "
                "element: %s",
                name,
                shown,
            )

    # TorchScript needs the annotation in the class that it compiles.
    exclude_types: list[int]
