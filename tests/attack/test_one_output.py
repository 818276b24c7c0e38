"""Two processes with one output, and processes that are stopped."""

from __future__ import annotations

import shutil
import signal
import time

import lmdb
import msgpack
import numpy as np
import pytest

from tests.helpers.attacks import finish, labels, refused, run, start, wait_for_staging
from tests.helpers.trees import tree

#: Verb and name of its output.
WRITERS = {"npy": ("convert", "out"), "lmdb": ("convert", "out.lmdb"), "split": ("split", "out")}


@pytest.fixture(scope="module")
def large(sources, tmp_path_factory):
    """A converted set that takes a while to split."""
    folder = tmp_path_factory.mktemp("large") / "set"
    assert run("convert", sources[0], folder, "--property", "gap=gap:eV").status == 0
    return folder


@pytest.fixture
def command(sources, large, tmp_path, request):
    """The arguments that write ``tmp_path/out``, and those of a rival with other content."""
    kind = getattr(request, "param", "npy")
    verb, name = WRITERS[kind]
    out = tmp_path / name
    if verb == "convert":
        mine, theirs = (("convert", one, out, "--property", "gap=gap:eV") for one in sources)
    else:
        mine, theirs = (
            ("split", "kfold", large, out, "--folds", 10, "--seed", seed, "--duplicates", "ignore")
            for seed in (1, 2)
        )
    return kind, out, mine, theirs


@pytest.fixture(scope="module")
def rivals():
    """What the rivals wrote, made once: kind to seconds and folder."""
    return {}


def content(kind, out):
    """Return what tells one writer's output from another's, after checking that it is whole."""
    if kind == "lmdb":
        with lmdb.open(str(out), readonly=True, lock=False) as env, env.begin() as transaction:
            record = msgpack.unpackb(transaction.get(b"000000000000"), raw=False)
            assert transaction.stat()["entries"] == 801
        return np.frombuffer(record["gap"]["data"])[0]
    if kind == "split":
        assert len(labels(out / "fold_09")) == 800
        return labels(out / "fold_00" / "train").sum()
    assert len(labels(out)) == 800
    return labels(out)[0]


every_writer = pytest.mark.parametrize("command", WRITERS, indirect=True)


@every_writer
def test_the_second_is_told_and_the_first_finishes(command):
    kind, out, mine, theirs = command
    first = start(*mine)
    wait_for_staging(out, first)
    first.send_signal(signal.SIGSTOP)
    refused(run(*theirs), "is being written by", f"process {first.pid} on", "choose another name")
    first.send_signal(signal.SIGCONT)
    done = finish(first)
    assert done.status == 0, done.err
    content(kind, out)
    assert [path.name for path in out.parent.iterdir()] == [out.name]


@pytest.mark.parametrize(
    ("command", "how"),
    [
        *((kind, signal.SIGTERM) for kind in WRITERS),
        ("npy", signal.SIGHUP),
        ("npy", signal.SIGINT),
    ],
    indirect=["command"],
)
def test_a_signal_leaves_nothing_and_says_so(command, how):
    _, out, mine, _ = command
    process = start(*mine)
    wait_for_staging(out, process)
    process.send_signal(how)
    done = finish(process)
    assert done.status == 128 + how
    assert "Traceback" not in done.err
    assert f"{out} was not written, and its unfinished files are removed" in done.err
    assert not list(out.parent.iterdir())


@every_writer
@pytest.mark.parametrize("seed", [0, 1])
def test_killed_at_any_moment(command, seed, large, rivals):
    """The old output is never lost, and the next run succeeds and leaves nothing."""
    kind, out, mine, theirs = command
    begin = time.perf_counter()
    if kind not in rivals:
        assert run(*theirs).status == 0
        rivals[kind] = (
            time.perf_counter() - begin,
            shutil.move(out, large.parent / f"{kind}-{out.name}"),
        )
    duration, rival = rivals[kind]
    shutil.copytree(rival, out)
    before, first = tree(out), content(kind, out)
    process = start(*mine, "--overwrite")
    wait_for_staging(out, process)
    time.sleep(np.random.default_rng(seed).uniform(0, 0.6 * duration))
    process.kill()
    finish(process)
    if out.exists():  # else killed between two renames
        assert tree(out) == before or content(kind, out) != first, "the old one or the new one"
    left = list(out.parent.glob(".*.partial"))
    done = run(*mine, "--overwrite")
    assert done.status == 0, done.err
    assert done.err.count("which a killed process had left") == len(left)
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    assert content(kind, out) != first
