"""How deepmd-kit reads frames."""

from __future__ import annotations

import importlib
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from deepmd_mft.names import GROUP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


class InlineExecutor:
    """Does at once, in the calling thread, what is submitted to it."""

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        """Take a thread pool's arguments; there is no pool."""

    def __enter__(self) -> InlineExecutor:  # noqa: PYI034  (Self is in typing from 3.11)
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def submit(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Future[Any]:
        """Call a function; return a finished future."""
        future: Future[Any] = Future()
        try:
            future.set_result(call(*args, **kwargs))
        except Exception as error:  # noqa: BLE001  (a future carries whatever was raised)
            future.set_exception(error)
        return future


def read_frames_without_threads() -> None:
    """Let deepmd-kit read the frames of npy systems in the calling thread.

    deepmd-kit 3.2.0 starts a thread pool for each frame it reads, to fetch a few memory-mapped
    rows: three times the time of the reading itself (benchmarks/reading.py), a fifth to a third of
    a training step of small molecules on two busy cores. The frames read are the same.
    """
    data = importlib.import_module("deepmd.utils.data")
    if hasattr(data, "ThreadPoolExecutor"):
        data.ThreadPoolExecutor = InlineExecutor  # type: ignore[attr-defined]


#: What stands for a label that a frame does not have, in a ``DataRequirementItem``.
MISSING = float("nan")


def label_or_nan(batch: dict[str, Any], name: str) -> Any:
    """Return the labels of a batch, NaN where a frame has none.

    deepmd-kit fills in the default of the requirement (:data:`MISSING` in ours), and says with one
    flag for the whole batch, that of its first frame, whether the label was there: the sets of one
    system need not all have the file.

    Parameters
    ----------
    batch : dict of torch.Tensor
        A batch as deepmd-kit's loaders give it.
    name : str
        Name of the label.

    Returns
    -------
    torch.Tensor
        nf x columns, in double precision.
    """
    labels = batch[name].double().reshape(len(batch[name]), -1)
    if not float(batch.get(f"find_{name}", 1.0)) and not labels.isnan().any():
        return labels * MISSING  # filled with another default
    return labels


def groups_in(batch: dict[str, Any], nframes: int) -> Any:
    """Return the numbers of the groups of a batch, as ``group.npy`` has them.

    Parameters
    ----------
    batch : dict of torch.Tensor
        A batch as deepmd-kit's loaders give it.
    nframes : int
        Its frames.

    Returns
    -------
    torch.Tensor
        Shape nf, in double precision; NaN for a frame on its own.
    """
    if GROUP in batch:
        return label_or_nan(batch, GROUP)[:, 0]
    torch: Any = importlib.import_module("torch")
    return torch.full((nframes,), MISSING, dtype=torch.float64)


#: Frames of a set in one batch of :func:`read_sets`.
BLOCK = 8192
#: Of a data requirement, what deepmd-kit's reader of a whole file takes.
READING = (
    "atomic",
    "high_prec",
    "must",
    "type_sel",
    "repeat",
    "default",
    "dtype",
    "output_natoms_for_type_sel",
)


def can_read_sets(data: Any, arrays: Iterable[str]) -> bool:
    """Whether :func:`read_sets` gives what deepmd-kit gives frame by frame.

    Parameters
    ----------
    data : deepmd.utils.data.DeepmdData or None
        None for data of another kind (an LMDB).
    arrays : iterable of str
        Names of arrays.
    """
    known = importlib.import_module("deepmd.utils.data").DeepmdData
    if type(data) is not known or data.modifier is not None:
        return False
    wanted = [data.data_dict.get(name) for name in arrays]
    return all(one is not None and one["reduce"] is None and one["repeat"] == 1 for one in wanted)


def read_sets(data: Any, arrays: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield the frames of a system in order, in batches as deepmd-kit's loaders give them.

    Every file is read once, and not opened once for each frame.

    Parameters
    ----------
    data : deepmd.utils.data.DeepmdData
        As :func:`can_read_sets` takes it.
    arrays : iterable of str
        Names of the arrays to read beside the types.

    Yields
    ------
    dict
        ``atype`` nf x nloc, ``natoms`` and (mixed systems) ``real_natoms_vec`` nf x (2 + ntypes),
        the arrays, nf x columns, and ``find_<array>``.
    """
    for folder in data.dirs:
        nframes = data._get_nframes(folder)
        if nframes == 0:
            continue
        whole = _types_of_set(data, folder, nframes)
        flags = {}
        for name in arrays:
            one = data.data_dict[name]
            options = {key: one[key] for key in READING}
            options["special_shape"] = one.get("special_shape")
            flags[f"find_{name}"], whole[name] = data._load_data(
                folder, name, nframes, one["ndof"], **options
            )
        yield from _in_blocks(whole, flags, nframes)


def _in_blocks(
    whole: dict[str, np.ndarray], flags: dict[str, Any], nframes: int
) -> Iterator[dict[str, Any]]:
    torch: Any = importlib.import_module("torch")
    for start in range(0, nframes, BLOCK):
        rows = slice(start, start + BLOCK)
        yield {**{key: torch.from_numpy(array[rows]) for key, array in whole.items()}, **flags}


def _types_of_set(data: Any, folder: Any, nframes: int) -> dict[str, np.ndarray]:
    """Return types and their numbers in each frame of a set."""
    ntypes = data.get_ntypes()
    natoms = np.tile(data.get_natoms_vec(ntypes), (nframes, 1))
    if not data.mixed_type:
        return {"atype": np.tile(data.atom_type[data.idx_map], (nframes, 1)), "natoms": natoms}
    types = data._load_type_mix(folder)
    if data.enforce_type_map:
        try:
            types = data.type_idx_map[types].astype(np.int32)
        except IndexError:
            raise IndexError(
                f"some types in 'real_atom_types.npy' of set {folder} are not contained in "
                f"{ntypes} types!"
            ) from None
    counts = [(types == number).sum(axis=1) for number in range(ntypes)]
    real = np.column_stack([natoms[:, :2], *counts])
    return {"atype": types, "natoms": natoms, "real_natoms_vec": real}


@contextmanager
def opened_lmdb(path: str) -> Iterator[Any]:
    """Open an LMDB for reading, or take it as deepmd-kit has it open already.

    A process may open a path only once; deepmd-kit counts who uses it.

    Yields
    ------
    lmdb.Environment
    """
    lmdb_data = importlib.import_module("deepmd.dpmodel.utils.lmdb_data")
    environment = lmdb_data._open_lmdb(path, sequential=True)
    try:
        yield environment
    finally:
        lmdb_data._close_lmdb(path)


def decode_record(raw: bytes) -> dict[str, Any]:
    """Decode a record of a deepmd LMDB; arrays are read-only views.

    Raises
    ------
    Exception
        Whatever comes up if it is damaged.
    """
    lmdb_data = importlib.import_module("deepmd.dpmodel.utils.lmdb_data")
    return dict(lmdb_data._remap_keys(lmdb_data._decode_frame(raw, copy_arrays=False)))


def lmdb_frames(path: str) -> Iterator[dict[str, Any]]:
    """Yield every record of a deepmd LMDB, with the names that its npy files would have.

    Arrays are read-only views. ``find_<label>`` of 0 means that a label is not there.

    Raises
    ------
    lmdb.Error, ValueError, TypeError, KeyError, ...
        If the file is damaged, or a record is no map of arrays.
    """
    lmdb_data = importlib.import_module("deepmd.dpmodel.utils.lmdb_data")
    with opened_lmdb(path) as environment, environment.begin() as transaction:
        meta = lmdb_data._read_metadata(transaction)
        nframes, form, _ = lmdb_data._parse_metadata(meta)
        for number in range(nframes):
            raw = transaction.get(format(number, form).encode())
            if raw is None:
                raise ValueError(f"record {number} is not there")
            yield decode_record(raw)


def lmdb_type_map(path: str) -> list[str]:
    """Return the elements of a deepmd LMDB; empty if it does not say."""
    lmdb_data = importlib.import_module("deepmd.dpmodel.utils.lmdb_data")
    return list(lmdb_data._read_metadata_of(path).get("type_map") or [])
