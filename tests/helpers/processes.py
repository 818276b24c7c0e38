"""Processes beside the test's own."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

HOLD = """
import sys, time
from pathlib import Path
from deepmd_mft.files.lock import locked, workspace
with {what}(Path(sys.argv[1])) as folder:
    {do}
    print("held", flush=True)
    time.sleep(60)
"""


def hold(
    out: Path, what: str = "workspace", do: str = "(folder / 'half').touch()"
) -> subprocess.Popen[str]:
    """Start a process that has begun to write ``out``."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD.format(what=what, do=do), str(out)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    return process
