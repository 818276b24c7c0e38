"""A loaded model and its forward pass over many structures.

Each core has a batch of its own: operators on small tensors share cores badly.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from deepmd_mft.backbones.families import family_of
from deepmd_mft.backbones.memory import keep_memory
from deepmd_mft.bridge.descriptors import watch_layer
from deepmd_mft.bridge.models import no_jit_warm_up
from deepmd_mft.structures.batches import ATOMS_PER_BATCH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np

    from deepmd_mft.backbones.family import Edges, Family
    from deepmd_mft.structures.batches import Batch
    from deepmd_mft.structures.structure_set import StructureSet

#: Batches at a time: models that are not frozen hold Python's lock for a tenth of the time.
MOST_WORKERS = 8
#: Memory of a GPU that is taken for an atom, and a limit. Set with care, not measured.
BYTES_PER_ATOM = 4 * 2**20
MOST_ATOMS = 16_384

T = TypeVar("T")


@dataclass(frozen=True)
class Seen:
    """What a model makes of a batch, on its device.

    Attributes
    ----------
    rows : np.ndarray
        Numbers of the structures in their set.
    node : torch.Tensor
        Output of the descriptor, nf x nloc x dim.
    last_layer : torch.Tensor
        Last hidden layer of the fitting net, nf x nloc x width.
    layers : list of torch.Tensor
        Node representation after each message-passing layer, if they were asked for.
    edges : Edges or None
        If they were asked for, and the descriptor has any.
    coord : torch.Tensor or None
        Coordinates that the neighbours of ``edges`` count in, nf x nall x 3.
    """

    rows: np.ndarray
    node: torch.Tensor
    last_layer: torch.Tensor
    layers: list[torch.Tensor]
    edges: Edges | None
    coord: torch.Tensor | None


class Network:
    """A loaded model.

    Parameters
    ----------
    model : torch.nn.Module
        In evaluation mode; scripted if it came from a ``.pth``.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        for weights in model.parameters():
            weights.requires_grad_(False)  # forces need the gradient by coordinates only
        self.device = next(iter(model.parameters())).device
        self.type_map: list[str] = list(model.get_type_map())

    @cached_property
    def dim_fparam(self) -> int:
        """Numbers of a frame parameter that the head takes."""
        return int(self.model.get_dim_fparam())

    @cached_property
    def default_fparam(self) -> list[float] | None:
        """Frame parameters of structures without any, as in training; None if they are needed."""
        params = json.loads(self.model.get_model_def_script() or "{}")
        found: list[float] | None = (params.get("fitting_net") or {}).get("default_fparam")
        return found

    @property
    def descriptor(self) -> Any:
        """The descriptor of a model that is not frozen, a ``torch.nn.Module``."""
        return self.model.atomic_model.descriptor

    @property
    def family(self) -> Family:
        """The kind of the descriptor of a model that is not frozen."""
        return family_of(self.descriptor)

    def batches(self, structures: StructureSet) -> list[Batch]:
        """Return the structures of a set in batches for this model."""
        atoms = atoms_per_batch(self.device)
        number = self.dim_fparam
        default = self.default_fparam if number else None
        return structures.batches(
            self.type_map, dim_fparam=number, default_fparam=default, atoms=atoms
        )

    def inputs(self, batch: Batch) -> tuple[torch.Tensor | None, ...]:
        """Return the coordinates, types, cells and frame parameters of a batch, on the device."""
        parts = (batch.coord, batch.atype, batch.box, batch.fparam)
        return tuple(
            None if part is None else torch.as_tensor(part, device=self.device) for part in parts
        )

    def each(self, batches: list[Batch], forward: Callable[[int], T]) -> Iterator[T]:
        """Yield what ``forward`` makes of each batch, by its number, in order.

        A few batches ahead of the one that is asked for are under way.
        """
        with _workers(self.device) as (pool, workers):
            waiting: deque[Any] = deque()
            for number in range(len(batches)):
                waiting.append(pool.submit(forward, number))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def look(
        self,
        batches: list[Batch],
        keep: Callable[[Seen], T],
        *,
        layers: bool = False,
        edges: bool = False,
    ) -> Iterator[T]:
        """Yield what ``keep`` takes from the representations of each batch, in order.

        Parameters
        ----------
        batches : list of Batch
        keep : callable
            Called where the batch is computed; what it does not return is let go.
        layers, edges : bool
            Whether they are wanted; of a model that is not frozen.
        """
        watched = _watched(self, layers=layers) if layers or edges else nullcontext(None)
        with watched as watch:

            def forward(number: int) -> T:
                if watch is not None:
                    watch.forget()
                with torch.no_grad(), no_jit_warm_up():  # both hold for one thread only
                    output = self.model.forward_embedding(*self.inputs(batches[number]))
                    node, last = output["descriptor"], output["atomic_feature"]
                    rows = batches[number].rows
                    if watch is None:
                        return keep(Seen(rows, node, last, [], None, None))
                    nodes = [self.family.node(one, len(rows)) for one in watch.layers]
                    found, coord = watch.edges(self.family) if edges else (None, None)
                    return keep(Seen(rows, node, last, nodes, found, coord))

            yield from self.each(batches, forward)


class _Watch(threading.local):
    """What a thread's last forward pass has shown."""

    def __init__(self) -> None:
        self.layers: list[torch.Tensor] = []
        self.called: tuple[Any, Any] | None = None

    def forget(self) -> None:
        """Make ready for the next batch."""
        self.layers, self.called = [], None

    def descriptor(self, _module: Any, arguments: Any, output: Any) -> None:
        """Note what the descriptor was given and returned."""
        self.called = arguments, output

    def layer(self, returned: torch.Tensor) -> None:
        """Note what a layer returned."""
        self.layers.append(returned)

    def edges(self, family: Family) -> tuple[Edges | None, torch.Tensor | None]:
        """Return the edges, and the coordinates that their neighbours count in."""
        if self.called is None:  # DPA-4's model goes past its descriptor's forward
            return None, None
        (coord, _, nlist, *_), output = self.called
        return family.edges(output, nlist), coord.reshape(len(nlist), -1, 3)


@contextmanager
def _watched(network: Network, *, layers: bool) -> Iterator[_Watch]:
    """Let a model show its layers and its descriptor's output in the block."""
    watch = _Watch()
    modules = network.family.layers(network.descriptor) if layers else []
    for module in modules:
        watch_layer(module, watch.layer)
    hook = network.descriptor.register_forward_hook(watch.descriptor)
    try:
        yield watch
    finally:
        hook.remove()
        for module in modules:
            del module.forward  # the class's own again


def atoms_per_batch(device: torch.device) -> int:
    """Return how many atoms go through a network at a time.

    A core is busy with few; a GPU, with thousands of cores, waits for the CPU on so few.
    """
    if device.type != "cuda":
        return ATOMS_PER_BATCH
    free, _ = torch.cuda.mem_get_info(device)
    return int(min(max(free // BYTES_PER_ATOM, ATOMS_PER_BATCH), MOST_ATOMS))


@contextmanager
def _workers(device: torch.device) -> Iterator[tuple[ThreadPoolExecutor, int]]:
    """Return a pool of threads, among which the cores that torch may use are divided."""
    cores = torch.get_num_threads()
    workers = min(cores, MOST_WORKERS) if device.type == "cpu" else 1
    torch.set_num_threads(cores // workers)  # holds for threads that start from here on
    keep_memory()
    pool = ThreadPoolExecutor(workers)
    try:
        yield pool, workers
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt does not wait for the batches to come
        torch.set_num_threads(cores)
