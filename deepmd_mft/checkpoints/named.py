"""Checkpoints that are known by a name: the embedded one, and those of deepmd-kit's registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deepmd_mft.bridge.pretrained import downloaded, registered
from deepmd_mft.errors import UserError
from deepmd_mft.files.checksums import file_checksum
from deepmd_mft.files.shipped import CHECKPOINT

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["EMBEDDED", "find_checkpoint"]

#: What the checkpoint is called that comes with the package.
EMBEDDED = "embedded"


def find_checkpoint(path: Path) -> Path:
    """Return the file of a checkpoint that the command line names.

    Parameters
    ----------
    path : Path
        A file or folder of that name comes first; else ``embedded``, or the name of a model that
        `dp pretrained download` has fetched, ``DPA-3.1-3M`` for instance.

    Raises
    ------
    UserError
        If a model of the registry was not downloaded, or not to the end.
    """
    name, known = str(path), registered()
    if path.exists():
        return path
    if name == EMBEDDED:
        return CHECKPOINT
    if name not in known:
        return path
    found = downloaded(name)
    if not found.is_file():
        raise UserError(
            f"{name} is not in deepmd-kit's cache ({found}); fetch it with "
            f"`dp pretrained download {name}`, or give the path of the file"
        )
    if file_checksum(found) != known[name]:
        raise UserError(
            f"{found} is not the {name} of deepmd-kit's registry (another SHA-256): a broken "
            f"download; run `dp pretrained download {name}` again"
        )
    return found
