"""How deepmd-kit reads frames."""

from __future__ import annotations

import importlib
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


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


def count_frames(folder: Any) -> int:
    """Return the frames of a ``set.*`` folder as deepmd-kit counts them: by a file's header.

    Parameters
    ----------
    folder : deepmd.utils.path.DPPath

    Raises
    ------
    OSError, ValueError, KeyError
        If ``coord.npy`` is missing or damaged.
    """
    data = importlib.import_module("deepmd.utils.data")
    return int(data.DeepmdData._get_nframes(None, folder))


def open_array(path: Any) -> np.ndarray:
    """Open an array of a system; of a file in a folder, only the header is read.

    Parameters
    ----------
    path : deepmd.utils.path.DPPath

    Raises
    ------
    OSError, EOFError, ValueError, KeyError
        If it is missing, damaged, or holds Python objects.
    """
    paths = importlib.import_module("deepmd.utils.path")
    if isinstance(path, paths.DPOSPath):
        return np.load(str(path), mmap_mode="r", allow_pickle=False)
    return np.asarray(path.load_numpy())


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
