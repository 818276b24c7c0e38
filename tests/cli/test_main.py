"""How `dp-mft` ends."""

from __future__ import annotations

import argparse
import importlib
import signal
import subprocess
import sys

import pytest

from deepmd_mft.cli.main import VERBS, main

POOL = """
import signal, sys, time, types
from concurrent.futures import ProcessPoolExecutor
from deepmd_mft.cli import main

def run(args):
    deaf = {"initializer": signal.signal, "initargs": (signal.SIGTERM, signal.SIG_IGN)}
    with ProcessPoolExecutor(2, **deaf) as pool:
        waiting = [pool.submit(time.sleep, 1000) for _ in range(5)]
        print("working", flush=True)
        return waiting[0].result()

verb = types.ModuleType("doc")
verb.add_arguments = lambda parser: None
verb.run = run
sys.modules["deepmd_mft.cli.doc"] = verb
sys.exit(main(["doc"]))
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_the_workers_too(how):
    """Also those that have not heard of it, as while they are being forked."""
    process = subprocess.Popen(
        [sys.executable, "-c", POOL], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "working\n"
        process.send_signal(how)
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + how
    assert told.strip() == f"dp-mft doc: stopped ({signal.strsignal(how)})"


DESTRUCTOR = """
import os, signal, sys, time, types
from deepmd_mft.cli import main

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it

class Cleaning:
    def __del__(self):
        os.kill(os.getpid(), int(sys.argv[1]))
        time.sleep(0.1)

def run(args):
    Cleaning()
    for _ in range(100):
        time.sleep(0.1)
    print("went on as if nothing had been")
    return 0

verb = types.ModuleType("doc")
verb.add_arguments = lambda parser: None
verb.run = run
sys.modules["deepmd_mft.cli.doc"] = verb
sys.exit(main(["doc"]))
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_that_comes_in_a_destructor_is_not_lost(how):
    """Python drops what is raised there."""
    done = subprocess.run(
        [sys.executable, "-c", DESTRUCTOR, str(int(how))],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (128 + how, "")
    name = "interrupted" if how == signal.SIGINT else f"stopped ({signal.strsignal(how)})"
    assert done.stderr.strip() == f"dp-mft doc: {name}"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError("Unable to allocate 7 TiB"), "not enough memory (Unable to allocate 7 TiB)"),
        (OSError(28, "No space left on device"), "the disk is full"),
        (PermissionError(13, "Permission denied", "a.csv"), "no permission for a.csv"),
    ],
)
def test_what_the_machine_refuses_is_one_message(monkeypatch, capsys, error, words):
    def fail(*args):
        raise error

    monkeypatch.setattr("deepmd_mft.cli.fetch.run", fail)
    assert main(["fetch"]) == 1
    assert words in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_every_verb_that_can_be_quiet_has_the_short_form():
    for name in VERBS:
        parser = argparse.ArgumentParser()
        importlib.import_module(f"deepmd_mft.cli.{name}").add_arguments(parser)
        forms = [one.option_strings for one in parser._actions if "--quiet" in one.option_strings]
        assert forms in ([], [["-q", "--quiet"]]), name
