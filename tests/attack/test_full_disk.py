"""A full disk ends every verb with one message and leaves nothing."""

from __future__ import annotations

import contextlib
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import torch

from deepmd_mft.checkpoints import selection
from deepmd_mft.checkpoints.file import write_state
from deepmd_mft.cli import main
from deepmd_mft.errors import UserError
from deepmd_mft.evaluation.tables import Evaluation
from deepmd_mft.files.staging import atomic_file, staged_folder
from deepmd_mft.representations import output
from tests.helpers.attacks import refused, run, told

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def small_files(size: int) -> Iterator[None]:
    """Let no file grow beyond a size, as a full disk does; portable, and needs no rights."""
    old, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (old, hard))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 100 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    options = ["-t", "tmpfs", "-o", "size=100k", "tmpfs", str(place)]
    done = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def commands(sources, converted, place):
    """Command lines that write more than 100 kB."""
    return {
        "npy": ("convert", sources[0], place / "out", "--property", "gap=gap:eV"),
        "lmdb": ("convert", sources[0], place / "out.lmdb", "--property", "gap=gap:eV"),
        "split": ("split", "kfold", converted / "npy", place / "out", "--folds", 30),
        "split of lmdb": ("split", "kfold", converted / "set.lmdb", place / "out", "--folds", 9),
    }


@pytest.mark.parametrize("kind", ["npy", "lmdb", "split", "split of lmdb"])
def test_full(sources, converted, small_disk, capsys, kind):
    done = told(capsys, *commands(sources, converted, small_disk)[kind])
    refused(done, "full", str(small_disk / "out"))
    assert not list(small_disk.iterdir())


@pytest.mark.parametrize("kind", ["npy", "lmdb", "split", "split of lmdb"])
def test_no_large_files(sources, converted, tmp_path, kind):
    done = run(*commands(sources, converted, tmp_path)[kind], file_size=1000)
    refused(done, "full", str(tmp_path / "out"))
    assert not list(tmp_path.iterdir())


def table(rows: int = 1000) -> pd.DataFrame:
    keys = {"model": "a", "file": "a.pt", "property": "gap", "set": "test"}
    return pd.DataFrame({**keys, "rmse": np.random.default_rng(0).random(rows)})


@pytest.mark.parametrize("table_format", ["csv", "parquet"])
def test_evaluate(tmp_path, table_format):
    found = Evaluation(table(1), table(1), table(), {}, [])
    with (
        small_files(3000),
        pytest.raises(UserError, match=r"disk is full while writing .*out"),
        staged_folder(tmp_path / "out", "evaluate") as folder,
    ):
        found.write(folder, table_format=table_format)
    assert not list(tmp_path.iterdir())


def test_select(tmp_path):
    state = {"model.a.weight": torch.rand(10_000)}
    with (
        small_files(3000),
        pytest.raises(UserError, match=r"\.pt .*is the disk full\?"),
        atomic_file(tmp_path / "model.average.pt") as partial,
    ):
        write_state(partial, state, {})
    rows = table().to_dict("records")
    with small_files(3000), pytest.raises(UserError, match=r"disk is full while writing .*\.csv"):
        selection._write_table(tmp_path, rows, {})
    assert [path.name for path in tmp_path.iterdir()] == ["selection.json"]


def test_analyze(tmp_path):
    arrays = {"node": np.zeros((1000, 3))}
    with (
        small_files(3000),
        pytest.raises(UserError, match=r"disk is full while writing .*out"),
        staged_folder(tmp_path / "out", "analyze") as folder,
    ):
        output._save_arrays(folder / "map.npz", arrays)
    assert not list(tmp_path.iterdir())


def test_input(tmp_path, capsys):
    template = tmp_path / "template.json"
    template.write_text(json.dumps({"training": {"a": "x" * 5000}}))
    with small_files(1000):
        status = main(["input", str(template), "-o", str(tmp_path / "new" / "input.json")])
    done_err = capsys.readouterr().err
    assert status == 1, done_err
    assert "Traceback" not in done_err
    assert [path.name for path in tmp_path.iterdir()] == ["template.json"]


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_standard_output(unbuffered, monkeypatch):
    """Nowhere to print to is told too, at once or at the end."""
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    command = [sys.executable, "-m", "deepmd_mft", "fetch"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert "dp-mft fetch: the disk is full" in done.stderr
