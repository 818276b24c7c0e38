"""Small sets to attack."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from deepmd_mft.cli import main
from tests.helpers.attacks import write_molecules

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two files of molecules, long enough to be caught while they are converted."""
    folder = tmp_path_factory.mktemp("sources")
    return (
        write_molecules(folder / "a.extxyz", 800),
        write_molecules(folder / "b.extxyz", 800, shift=10_000),
    )


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one small set in both layouts: ``npy`` and ``set.lmdb``."""
    folder = tmp_path_factory.mktemp("converted")
    source = write_molecules(folder / "few.extxyz", 40)
    for name in ("npy", "set.lmdb"):
        command = [
            "convert",
            str(source),
            str(folder / name),
            "--property",
            "gap=gap:eV",
            "--quiet",
        ]
        assert main(command) == 0
    return folder


@pytest.fixture
def npy(converted: Path, tmp_path: Path) -> Path:
    """A copy of the npy set, to be broken, and a place for outputs."""
    shutil.copytree(converted / "npy", tmp_path / "in" / "set")
    return tmp_path / "in" / "set"
