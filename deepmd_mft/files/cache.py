"""Results that depend on the content of data alone, kept from one run to the next."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deepmd_mft.errors import UserError
from deepmd_mft.files.checksums import file_checksum
from deepmd_mft.files.staging import atomic_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

log = logging.getLogger(f"deepmd.{__name__}")

#: Raise it when the meaning of what is kept changes.
FORMAT = 1
#: Files of a system that are no array.
TABLES = ("type.raw", "type_map.raw", "nopbc")


def cache_home() -> Path:
    """Return the folder of this package's cache, as the XDG directories have it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "deepmd_mft"


def content_key(systems: Iterable[str], arrays: Iterable[str], *options: Any) -> str | None:
    """Return a key of what systems hold.

    Parameters
    ----------
    systems : iterable of str
        Folders of deepmd/npy systems, in order.
    arrays : iterable of str
        Names of the arrays that matter; one that is absent matters too.
    *options
        Whatever else the result depends on, as JSON takes it.

    Returns
    -------
    str or None
        None where a system is no folder (HDF5), or cannot be read.
    """
    digest = hashlib.sha256(json.dumps([FORMAT, options]).encode())
    wanted = sorted(arrays)
    try:
        for system in map(Path, systems):
            if not system.is_dir():
                return None
            files = [system / name for name in TABLES]
            for folder in sorted(system.glob("set.*")):
                files += [folder / f"{name}.npy" for name in wanted]
            for file in files:
                digest.update(f"\n{file.relative_to(system)}:".encode())
                if file.is_file():
                    digest.update(bytes.fromhex(file_checksum(file)))
    except OSError:
        return None
    return digest.hexdigest()


def remembered(
    kind: str, key: str | None, compute: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Return arrays from the cache, or compute and keep them.

    Parameters
    ----------
    kind : str
        A folder of the cache.
    key : str or None
        As of :func:`content_key`; None computes.
    compute : callable
        Returns the arrays.
    """
    if key is None:
        return compute()
    path = cache_home() / kind / f"{key}.npz"
    try:
        with np.load(path, allow_pickle=False) as kept:
            found = dict(kept)
        log.info("%s: known from an earlier run (%s)", kind.replace("_", " "), path)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        found = compute()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(path) as partial:
                np.savez(partial, allow_pickle=False, **found)
        except (OSError, UserError) as error:  # a full or read-only home stops no training
            log.info("%s cannot be kept for the next run: %s", kind.replace("_", " "), error)
    return found
