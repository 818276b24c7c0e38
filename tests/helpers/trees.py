"""What lies in a folder, to be compared before and after."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def tree(folder: Path) -> dict[str, str]:
    """Return every file, link and empty folder below ``folder`` with its content's digest."""
    found = {}
    for root, folders, files in os.walk(folder):
        for name in (*files, *folders):
            path = Path(root) / name
            key = path.relative_to(folder).as_posix()
            if path.is_symlink():
                found[key] = f"-> {path.readlink()}"
            elif path.is_file():
                found[key] = hashlib.sha256(path.read_bytes()).hexdigest()
            elif not any(path.iterdir()):
                found[key] = "empty"
    return found
