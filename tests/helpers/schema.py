"""deepmd-kit's schema: half a second to build, for every input that is read."""

from __future__ import annotations

import functools

from deepmd.utils import argcheck


def build_once() -> None:
    """Let deepmd-kit keep its schema, which is the same every time, in this process."""
    if not hasattr(argcheck.gen_args, "cache_clear"):
        argcheck.gen_args = functools.lru_cache(maxsize=None)(argcheck.gen_args)
