"""Checksums of files."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["file_checksum"]

_CHUNK = 2**20


def file_checksum(path: Path, algorithm: str = "sha256") -> str:
    """Hexadecimal digest of a file's content (``hashlib.file_digest`` needs Python 3.11)."""
    digest = hashlib.new(algorithm)
    with path.open("rb") as handle:
        while chunk := handle.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
