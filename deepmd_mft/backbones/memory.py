"""Keeping freed memory in the process, for work that frees and takes the same again and again."""

from __future__ import annotations

import ctypes
import gc

#: Parameters of glibc's mallopt (malloc.h).
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
#: Blocks below this stay in the heap, in bytes.
LARGEST_KEPT = 2**28


def keep_memory() -> None:
    """Let freed blocks stay in the process, and the garbage collector pass over what is loaded.

    glibc hands large freed blocks back to the system at once, and the next tensor of the same size
    is faulted in anew, page by page: a tenth to half of the time of a training step on a CPU. The
    process keeps the largest amount of memory that it ever needed, as it would anyway at its peak.
    Python's full collections visit every object of torch and deepmd-kit, a twentieth of a step.
    """
    gc.collect()
    gc.freeze()
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # no glibc: nothing to set
        return
    mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(M_TOP_PAD, 2**26)
