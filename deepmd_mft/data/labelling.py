"""Labels of a pool by a teacher: in pieces, in processes, kept from one run to the next."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from deepmd_mft.data.teachers.base import REASON
from deepmd_mft.errors import UserError
from deepmd_mft.files.cache import remembered

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deepmd_mft.data.pool import Pool
    from deepmd_mft.data.teachers import Teacher
    from deepmd_mft.structures.structure import Structure

__all__ = ["labelled"]

#: Of labels in the cache; raise it when a teacher labels otherwise than before.
_KEPT = 2


def labelled(
    pool: Pool, teacher: Teacher, jobs: int = 1, *, progress: bool = False
) -> dict[str, np.ndarray]:
    """Label a pool: ``energy``, ``force``, ..., as :meth:`Teacher.label` returns them.

    Finished pieces are kept in the cache, so that an interrupted run goes on after the last of
    them. A teacher that takes one structure after the other labels several pieces at a time.

    Raises
    ------
    UserError
        If a process dies.
    """
    charges = np.array(pool.charges)
    starts = range(0, len(pool), teacher.piece)
    pieces = [slice(start, start + teacher.piece) for start in starts]
    work = [(teacher, pool.structures[piece], charges[piece]) for piece in pieces]
    label = _in_processes(work, jobs) if teacher.alone else (_piece(*one) for one in work)
    done: list[dict[str, np.ndarray]] = []
    with tqdm(total=len(pool), unit=" structures", desc=teacher.name, disable=not progress) as bar:
        for one in label:
            done.append(one)
            bar.update(len(one[REASON]))
    return {name: np.concatenate([one[name] for one in done]) for name in _names(done)}


def _in_processes(
    work: list[tuple[Teacher, list[Structure], np.ndarray]], jobs: int
) -> Iterator[dict[str, np.ndarray]]:
    """Yield the labels of pieces, in order."""
    # Not forked: after a fork torch has no gradients, and OpenMP may wait for threads for ever.
    context = get_context("spawn")
    pool = ProcessPoolExecutor(min(jobs, len(work)), context, initializer=_one_thread)
    try:
        waiting = deque(pool.submit(_piece, *one) for one in work)
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise UserError(
            f"a process that labels with {work[0][0].name} has died, of too little memory or of a "
            "fault in it; what is finished is kept, run again with fewer --jobs"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _one_thread() -> None:
    """Let a process have one core, and leave a Ctrl-C to its parent."""
    from threadpoolctl import threadpool_limits  # noqa: PLC0415

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["OMP_NUM_THREADS"] = "1"  # of libraries that are not loaded yet
    threadpool_limits(1)


def _names(pieces: list[dict[str, np.ndarray]]) -> list[str]:
    """Return the labels that every piece has: a piece without any lacks the properties."""
    found = sorted(set().union(*pieces))
    for piece in pieces:
        for name in found:
            piece.setdefault(name, np.full(len(piece[REASON]), np.nan))
    return found


def _piece(
    teacher: Teacher, structures: list[Structure], charges: np.ndarray
) -> dict[str, np.ndarray]:
    about = [_KEPT, teacher.record, sorted(teacher.units)]
    digest = hashlib.sha256(json.dumps(about).encode())
    for one in structures:
        for array in one:
            digest.update(b"-" if array is None else np.ascontiguousarray(array).tobytes())
    digest.update(charges.tobytes())
    return remembered("labels", digest.hexdigest(), partial(teacher.label, structures, charges))
