"""deepmd-kit's neighbour search."""

from __future__ import annotations

import contextlib
import functools
import importlib
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from deepmd_mft.structures.cells import right_handed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class NeighbourLists:
    """Remembers the neighbour lists of batches that several models of one shape see.

    The models must not be compiled, and have the same cutoff and ``sel``: checkpoints of one run.

    Parameters
    ----------
    most_bytes : int
        Memory to take; the lists of further batches are built anew for every model.
    """

    def __init__(self, most_bytes: int = 2**30) -> None:
        self._found: dict[int, Any] = {}
        self._batch = threading.local()
        self._room = most_bytes
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Use the lists known, and remember new ones, in the block."""
        make_model: Any = importlib.import_module("deepmd.pt.model.model.make_model")
        build = make_model.extend_input_and_build_neighbor_list

        def remember(*args: Any, **kwargs: Any) -> Any:
            number = self._batch.number
            if number in self._found:
                return self._found[number]
            lists = build(*args, **kwargs)
            size = sum(part.nbytes for part in lists if part is not None)
            with self._lock:
                if size <= self._room:
                    self._room -= size
                    self._found[number] = lists
            return lists

        make_model.extend_input_and_build_neighbor_list = remember
        try:
            yield
        finally:
            make_model.extend_input_and_build_neighbor_list = build

    def choose(self, number: int) -> None:
        """Say which batch this thread sees next."""
        self._batch.number = number


def remember_neighbour_statistics(
    remember: Callable[[list[str], tuple[Any, ...], Callable[[], dict[str, Any]]], dict[str, Any]],
) -> None:
    """Let deepmd-kit ask for neighbour statistics of training data that it has seen before.

    Before a training deepmd-kit counts the neighbours of every frame, once for each cutoff of each
    branch.

    Parameters
    ----------
    remember : callable
        Takes the folders of systems, what else the result depends on, and a function that computes
        it as arrays; returns the arrays.
    """
    update_sel: Any = importlib.import_module("deepmd.utils.update_sel")
    deepmd_get = update_sel.BaseUpdateSel.get_nbor_stat
    if hasattr(deepmd_get, "__wrapped__"):
        return

    @functools.wraps(deepmd_get)
    def get(
        self: Any, train_data: Any, type_map: Any, rcut: float, mixed_type: bool = False
    ) -> tuple[float, Any]:
        systems = getattr(train_data, "system_dirs", None)
        if systems is None:  # an LMDB
            return tuple(deepmd_get(self, train_data, type_map, rcut, mixed_type))
        computed = False

        def compute() -> dict[str, Any]:
            nonlocal computed
            computed = True
            distance, size = deepmd_get(self, train_data, type_map, rcut, mixed_type)
            return {"distance": np.asarray(distance), "size": np.asarray(size)}

        found = remember(list(map(str, systems)), (type_map, rcut, mixed_type), compute)
        if not computed:
            train_data.get_batch()  # as deepmd-kit does first: random numbers go on the same
        return float(found["distance"]), found["size"]

    update_sel.BaseUpdateSel.get_nbor_stat = get


def count_neighbours(coord: Any, cell: Any, rcut: float) -> Any:
    """Count the neighbours of every atom with deepmd-kit's own search.

    Parameters
    ----------
    coord : np.ndarray
        nloc x 3, in Angstrom; in any cell.
    cell : np.ndarray or None
        3 x 3, in Angstrom, of either hand; None for a molecule.
    rcut : float
        In Angstrom.

    Returns
    -------
    np.ndarray of int
        Shape nloc.
    """
    torch: Any = importlib.import_module("torch")
    nlist: Any = importlib.import_module("deepmd.pt.utils.nlist")
    region: Any = importlib.import_module("deepmd.pt.utils.region")
    position = torch.as_tensor(coord, dtype=torch.float64).reshape(1, -1, 3)
    atype = torch.zeros(position.shape[:2], dtype=torch.long)
    box = None if cell is None else torch.as_tensor(right_handed(cell)).reshape(1, 9)
    if box is not None:  # as deepmd-kit does first: images are made around the cell
        position = region.normalize_coord(position, box.reshape(1, 3, 3))
    extended, _, _ = nlist.extend_coord_with_ghosts(position, atype, box, rcut)
    distance = torch.cdist(position[0], extended.reshape(-1, 3))
    return (distance <= rcut).sum(dim=1).cpu().numpy() - 1
