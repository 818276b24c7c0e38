"""`dp` without its imports: a process that has done them forks for every command.

Each command is a process of its own, with its own folder and environment, as at a user's prompt. It
spares five seconds of processor time, of the nine that a tiny training takes.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SLOW_TO_IMPORT = (
    "deepmd.main",
    "deepmd.entrypoints.main",
    "deepmd.pt.entrypoints.main",
    "deepmd_mft.backbones.switch",
    "deepmd_mft.bridge.training",
    "deepmd_mft.inputs.gate",
)
#: Variables that may be read when modules are imported.
AT_IMPORT = ("DP_", "OMP_", "NUM_WORKERS", "CUDA", "PYTHON")


def run(arguments: tuple[str, ...], folder: Path, environment: dict[str, str]) -> tuple[int, str]:
    """Run `dp`; return its status and what it printed."""
    own = {key: value for key, value in environment.items() if key.startswith(AT_IMPORT)}
    with tempfile.NamedTemporaryFile("r", errors="replace") as output:
        request = {
            "arguments": arguments,
            "folder": str(folder),
            "environment": environment,
            "output": output.name,
        }
        server = _server(os.getpid(), tuple(sorted(own.items())))
        assert server.stdin is not None
        assert server.stdout is not None
        print(json.dumps(request), file=server.stdin, flush=True)
        return int(server.stdout.readline()), output.read()


@lru_cache(maxsize=4)
def _server(_pid: int, own: tuple[tuple[str, str], ...]) -> subprocess.Popen[str]:
    """Start a process that waits for commands until this one ends."""
    others = {key: value for key, value in os.environ.items() if not key.startswith(AT_IMPORT)}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.helpers.forked"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**others, **dict(own)},
    )


def _serve() -> dict[str, Any]:
    """Fork for every request; the child returns with it."""
    for name in SLOW_TO_IMPORT:
        importlib.import_module(name)
    from deepmd.utils import argcheck

    from tests.helpers.schema import build_once

    build_once()
    argcheck.gen_args(multi_task=False)
    argcheck.gen_args(multi_task=True)
    gc.freeze()  # what is there already is not looked through again in every child
    while line := sys.stdin.readline():
        pid = os.fork()
        if pid == 0:
            return dict(json.loads(line))
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    os._exit(0)  # the tests are over: there is nothing to clean up, or to report the coverage of


def _become(request: dict[str, Any]) -> None:
    """Go on as `dp` with its arguments, in its folder."""
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    nothing, output = os.open(os.devnull, os.O_RDONLY), os.open(request["output"], os.O_WRONLY)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.argv = ["dp", *request["arguments"]]
    from deepmd.main import main

    main()


if __name__ == "__main__":
    _become(_serve())
