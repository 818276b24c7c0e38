"""How deepmd-kit reads frames."""

from __future__ import annotations

import importlib
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


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
