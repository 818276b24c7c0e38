"""What a careless or hostile user of the command line does, and what must not come of it."""

from __future__ import annotations

import io
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib import format as npy_format

from deepmd_mft.cli import main
from tests.helpers.trees import tree

if TYPE_CHECKING:
    import pytest

#: A number of rows that nothing can hold.
HUGE = 10**13
#: Memory that a command may take for itself (mapped files do not count), in bytes.
MEMORY = 3 * 2**30


@dataclass
class Done:
    """A command that has ended.

    Attributes
    ----------
    status : int
        Exit status; minus the signal that killed it.
    out, err : str
    """

    status: int
    out: str
    err: str


LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
memory, file_size = int(sys.argv[1]), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
if file_size:
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
sys.argv[1:] = sys.argv[3:]
from deepmd_mft.cli import main
sys.exit(main())
"""


def start(*arguments: object, memory: int = MEMORY, file_size: int = 0) -> subprocess.Popen[str]:
    """Start ``dp-mft`` with limited memory and, if asked for, limited files."""
    limits = [str(memory), str(file_size)]
    # Coverage is not measured there: it writes files too, and may not under these limits.
    measured = ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")
    environment = {key: value for key, value in os.environ.items() if key not in measured}
    return subprocess.Popen(
        [sys.executable, "-c", LIMITED, *limits, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**environment, "PYTHONPATH": str(Path(__file__).parents[2])},
    )


def finish(process: subprocess.Popen[str]) -> Done:
    """Wait for a command, a minute at most."""
    out, err = process.communicate(timeout=60)
    return Done(process.returncode, out, err)


def run(*arguments: object, memory: int = MEMORY, file_size: int = 0) -> Done:
    """Run ``dp-mft``."""
    return finish(start(*arguments, memory=memory, file_size=file_size))


def refused(done: Done, *words: str) -> None:
    """Assert that a command ended with one message, which has the words, and no traceback."""
    assert done.status == 1, (done.status, done.err)
    assert "Traceback" not in done.err, done.err
    assert done.err.count("dp-mft ") >= 1
    assert sum(line.startswith("dp-mft ") for line in done.err.splitlines()) == 1, done.err
    for word in words:
        assert word in done.err, (word, done.err)


def wait_for_staging(out: Path, process: subprocess.Popen[str]) -> Path:
    """Wait until a command has begun to write ``out``; return its temporary folder."""
    while True:
        for folder in out.parent.glob(f".{out.name}.*.partial"):
            return folder
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)


def write_molecules(path: Path, rows: int, shift: float = 0.0) -> Path:
    """Write water with a label ``gap`` that tells the row, as extended XYZ."""
    rng = np.random.default_rng(0)
    water = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
    lines = []
    for row in range(rows):
        lines += ["3", f'Properties=species:S:1:pos:R:3 gap={row + shift} pbc="F F F"']
        places = water + rng.normal(scale=0.03, size=(3, 3))
        lines += [
            f"{e} {x:.6f} {y:.6f} {z:.6f}" for e, (x, y, z) in zip("OHH", places, strict=True)
        ]
    path.write_text("\n".join(lines) + "\n")
    return path


def labels(system: Path) -> np.ndarray:
    """Return the labels ``gap`` below a folder, sorted."""
    found = [np.load(path).reshape(-1) for path in sorted(system.rglob("gap.npy"))]
    return np.sort(np.concatenate(found)) if found else np.empty(0)


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> Done:
    """Run ``dp-mft`` in this process, which may not grow by more than a GiB."""
    status = Path("/proc/self/status")
    used = 0
    if status.is_file():
        (line,) = (one for one in status.read_text().splitlines() if one.startswith("VmData"))
        used = 1024 * int(line.split()[1])
    old, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (used + 2**30, hard))
    try:
        code = main([str(one) for one in arguments])
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (old, hard))
    return Done(code, *capsys.readouterr())


class Touch:
    """A pickle that would make a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


def header(shape: tuple[int, ...], descr: str = "<f8") -> bytes:
    """Return the start of an ``.npy`` file of such a shape."""
    text = io.BytesIO()
    npy_format.write_array_header_1_0(
        text, {"descr": descr, "fortran_order": False, "shape": shape}
    )
    return text.getvalue()


def saved(array: np.ndarray, **options: bool) -> bytes:
    """Return an array as ``numpy.save`` writes it."""
    text = io.BytesIO()
    np.save(text, array, **options)
    return text.getvalue()


def harmless(done: Done, place: Path, before: dict[str, str], touched: Path, *words: str) -> None:
    """Assert that a command was refused, changed nothing, left nothing and executed nothing."""
    refused(done, *words)
    assert not touched.exists(), "the file was executed"
    assert tree(place) == before
    assert sorted(path.name for path in place.parent.iterdir()) == [place.name]
