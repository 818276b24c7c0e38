"""How deepmd-kit's trainer builds losses and samples data for statistics."""

from __future__ import annotations

import functools
import importlib
import logging
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from deepmd_mft.bridge.reading import can_read_sets, read_sets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Frames read at once where a loader does not say how many.
AT_ONCE = 32

log = logging.getLogger(f"deepmd.{__name__}")  # below deepmd's logger, to share its handlers


def complete_losses(complete: Callable[[dict[str, Any], Any], dict[str, Any]]) -> None:
    """Let registered losses take from their model what their JSON leaves out.

    deepmd-kit's ``get_loss`` asks the model for what its own property and dos losses need, but
    gives a registered loss the JSON alone. The labels to load are asked for before the first
    forward, so the loss must know them when it is built.

    Parameters
    ----------
    complete : callable
        Takes the JSON of a loss and the model of its branch, and returns the JSON to build from.
    """
    training: Any = importlib.import_module("deepmd.pt.train.training")
    deepmd_get_loss = training.get_loss

    @functools.wraps(deepmd_get_loss)
    def get_loss(loss_params: dict[str, Any], start_lr: float, ntypes: int, model: Any) -> Any:
        return deepmd_get_loss(complete(loss_params, model), start_lr, ntypes, model)

    training.get_loss = get_loss


def change_models(change: Callable[[list[Any]], None]) -> None:
    """Call ``change`` with the models of a training as soon as the trainer has built them.

    Parameters
    ----------
    change : callable
        Takes the models of all branches, before they share parameters and load a checkpoint.
    """
    training: Any = importlib.import_module("deepmd.pt.train.training")
    deepmd_build = training.get_model_for_wrapper

    @functools.wraps(deepmd_build)
    def build(*args: Any, **kwargs: Any) -> Any:
        built = deepmd_build(*args, **kwargs)
        change(list(built.values()) if isinstance(built, dict) else [built])
        return built

    training.get_model_for_wrapper = build


class StatisticsSample(list):
    """What deepmd-kit packs for statistics, and the data that it was drawn from.

    Parameters
    ----------
    packed : list of dict
        One dict of tensors per data system, of ``data_stat_nbatch`` batches each.
    loaders : list of torch.utils.data.DataLoader
        One per system.
    min_pair_dist : float
        Frames with closer atoms are not trained on.
    """

    def __init__(self, packed: list[dict], loaders: list[Any], min_pair_dist: float) -> None:
        super().__init__(packed)
        self.loaders = loaders
        self.min_pair_dist = min_pair_dist

    @property
    def systems(self) -> list[str] | None:
        """The folders of the data; None for an LMDB, or where a modifier changes what is read."""
        datasets = [loader.dataset for loader in self.loaders]
        if any(getattr(one, "modifier", None) is not None for one in datasets):
            return None
        found = [getattr(one, "system", None) for one in datasets]
        return None if None in found else list(map(str, found))

    def batches(
        self, arrays: list[str] | None = None, most: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """Yield every frame once, system after system, in batches of tensors on the CPU.

        ``sid`` is the number of the system, as in deepmd-kit's batches.

        Parameters
        ----------
        arrays : list of str, optional
            What is needed of a frame beside its types; all by default.
        most : int, optional
            Draw about so many if there are more, of each system its share (one at least).
        """
        nframes = sum(len(loader.dataset) for loader in self.loaders)
        share = 1.0 if most is None else min(1.0, most / max(nframes, 1))
        rng = np.random.default_rng(0)
        drawn = f", about {most} drawn" if share < 1 else ""
        log.info("Reading labels for statistics from %d frames%s", nframes, drawn)
        stat: Any = importlib.import_module("deepmd.pt.utils.stat")
        torch: Any = importlib.import_module("torch")
        for sid, loader in enumerate(self.loaders):
            data = getattr(loader.dataset, "data_system", None)
            every = share == 1 and self.min_pair_dist <= 0
            if every and arrays is not None and can_read_sets(data, arrays):
                yield from ({**batch, "sid": sid} for batch in read_sets(data, arrays))
                continue
            frames = loader.dataset  # a loader of distributed training sees a part of it
            if share < 1:
                number = math.ceil(share * len(frames))
                rows = np.sort(rng.choice(len(frames), number, replace=False))
                frames = torch.utils.data.Subset(frames, rows.tolist())
            with torch.device("cpu"):
                everything = torch.utils.data.DataLoader(
                    frames,
                    batch_size=loader.batch_size or AT_ONCE,  # none if it draws whole groups
                    collate_fn=loader.collate_fn,
                    generator=torch.Generator(),  # leaves the training's random numbers alone
                )
                for batch in everything:
                    keep = stat.min_pair_dist_frame_mask(batch, self.min_pair_dist)
                    if keep is None:
                        yield {**batch, "sid": sid}
                    elif keep.any():
                        yield {**stat.select_batch_frames(batch, keep), "sid": sid}


def keep_data_of_statistics() -> None:
    """Let statistics see the data from which deepmd-kit samples a few batches.

    A model gets ``data_stat_nbatch`` batches of each system, packed; nothing in deepmd-kit's
    interface leads from there to the other frames.
    """
    training: Any = importlib.import_module("deepmd.pt.train.training")
    make_stat_input = training.make_stat_input

    @functools.wraps(make_stat_input)
    def make_sample(
        datasets: list[Any], dataloaders: list[Any], nbatches: int, min_pair_dist: float = 0.0
    ) -> StatisticsSample:
        packed = make_stat_input(datasets, dataloaders, nbatches, min_pair_dist=min_pair_dist)
        return StatisticsSample(packed, list(dataloaders), min_pair_dist)

    training.make_stat_input = make_sample


def all_batches(
    sample: list[dict], arrays: list[str] | None = None, most: int | None = None
) -> Iterator[dict[str, Any]]:
    """Yield all frames of the training data that a sample was drawn from, in batches.

    Parameters
    ----------
    sample : list of dict
        As deepmd-kit gives it to a model. One that was packed elsewhere (``dp change-bias``) is
        taken as it is.
    arrays : list of str, optional
        What is needed of a frame beside its types, so that the sets of a system can be read as
        wholes; everything by default, frame by frame.
    most : int, optional
        Draw about so many if there are more.
    """
    if isinstance(sample, StatisticsSample):
        return sample.batches(arrays, most)
    return ({**system, "sid": sid} for sid, system in enumerate(sample))
