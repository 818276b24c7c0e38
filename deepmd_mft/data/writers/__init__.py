"""Writers of deepmd-kit data sets: ``npy`` (mixed type) and ``lmdb``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deepmd_mft.data.writers.base import Writer
from deepmd_mft.data.writers.lmdb import LmdbWriter
from deepmd_mft.data.writers.npy import NpyWriter

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["LmdbWriter", "NpyWriter", "Writer", "open_writer"]


def open_writer(
    out: Path,
    *,
    type_map: list[str] | None = None,
    inputs: Sequence[Path] = (),
    overwrite: bool = False,
) -> Writer:
    """Open the writer that the name of ``out`` asks for: LMDB for ``*.lmdb``, else npy."""
    kind = LmdbWriter if out.suffix == ".lmdb" else NpyWriter
    return kind(out, type_map=type_map, inputs=inputs, overwrite=overwrite)
