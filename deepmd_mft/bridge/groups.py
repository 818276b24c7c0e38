"""Batches of whole groups, in place of deepmd-kit's batches of frames.

deepmd-kit draws the frames of a batch one by one. Where a system has a ``group.npy``
(:mod:`deepmd_mft.structures.groups`), its loader draws groups.
"""

from __future__ import annotations

import functools
import importlib
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from deepmd_mft.names import GROUP
from deepmd_mft.structures.arrays import as_frames
from deepmd_mft.structures.groups import check_numbers, number_groups

if TYPE_CHECKING:
    from collections.abc import Iterator


class WholeGroups:
    """Draws batches of whole groups, each group once a round.

    All batches but the last of a round have the same number of groups, so that every group weighs
    the same in the mean over a batch.

    Parameters
    ----------
    groups : np.ndarray of int
        Group of each frame, from 0; shape ``nframes``.
    batch_size : int
        Frames of a batch, on average.
    rank, world_size : int
        Which of the processes of a distributed training; each draws its share of the groups.
    """

    def __init__(
        self, groups: np.ndarray, batch_size: int, rank: int = 0, world_size: int = 1
    ) -> None:
        order = np.argsort(groups, kind="stable")
        sizes = np.bincount(groups)
        self.members: list[list[int]] = [
            rows.tolist() for rows in np.split(order, np.cumsum(sizes)[:-1])
        ]
        self.number = max(1, round(batch_size / sizes.mean()))
        self.rank, self.world_size = rank, world_size
        self.rounds = 0

    def __len__(self) -> int:
        share = math.ceil(len(self.members) / self.world_size)
        return math.ceil(share / self.number)

    def __iter__(self) -> Iterator[list[int]]:
        order = self._order()
        for start in range(0, len(order), self.number):
            chosen = order[start : start + self.number]
            yield [row for group in chosen for row in self.members[group]]

    def _order(self) -> list[int]:
        """Shuffle the groups; of several processes, take this one's share, all of one length."""
        torch: Any = importlib.import_module("torch")
        number = len(self.members)
        if self.world_size == 1:
            return list(torch.randperm(number, device="cpu").tolist())
        generator = torch.Generator().manual_seed(self.rounds)  # the same in all processes
        self.rounds += 1
        order = torch.randperm(number, generator=generator, device="cpu").tolist()
        order += order[: -number % self.world_size]
        return list(order[self.rank :: self.world_size])


def groups_of(data: Any) -> np.ndarray | None:
    """Return the group of each frame of a system, from 0; None if its labels are of frames.

    Parameters
    ----------
    data : deepmd.utils.data.DeepmdData
    """
    places = [folder / f"{GROUP}.npy" for folder in data.dirs]
    if not any(path.is_file() for path in places):
        return None
    numbers = []
    for folder, path in zip(data.dirs, places, strict=True):
        nframes = data._get_nframes(folder)
        array = path.load_numpy() if path.is_file() else np.full(nframes, np.nan)
        numbers.append(check_numbers(as_frames(array, nframes, path), path))
    return number_groups(np.concatenate(numbers))


def draw_whole_groups() -> None:
    """Let deepmd-kit's loaders of npy systems draw the groups of a system whole."""
    module: Any = importlib.import_module("deepmd.pt.utils.dataloader")
    build = module.DpLoaderSet.__init__

    @functools.wraps(build)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        build(self, *args, **kwargs)
        for number, system in enumerate(self.systems):
            groups = groups_of(system.data_system)
            if groups is not None:
                _replace(module, self, number, groups)

    module.DpLoaderSet.__init__ = init


def _replace(module: Any, loaders: Any, number: int, groups: np.ndarray) -> None:
    """Put a loader of whole groups in the place of one of frames."""
    torch: Any = importlib.import_module("torch")
    rank, world_size = 0, 1
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    sampler = WholeGroups(groups, int(loaders.batch_sizes[number]), rank, world_size)
    loader = torch.utils.data.DataLoader(
        loaders.systems[number],
        batch_sampler=sampler,
        num_workers=0,
        collate_fn=module.collate_batch,
    )
    loaders.total_batch += len(sampler) - loaders.index[number]
    loaders.dataloaders[number], loaders.index[number] = loader, len(sampler)
    with torch.device("cpu"):
        loaders.iters[number] = iter(loader)
