"""Fixtures that several rooms use."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.helpers.dp import DATA, ROOT, Dp, mft_input, pretrain_input
from tests.helpers.schema import build_once

if TYPE_CHECKING:
    from collections.abc import Iterator

SHARED = Path(os.environ.get("DEEPMD_MFT_SHARED", ROOT.parent / "shared")) / "data"


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep what is remembered between trainings out of the home folder."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session", autouse=True)
def schema() -> None:
    """Build deepmd-kit's schema once."""
    build_once()


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """No test, and nothing that a test runs, writes into the folder that it is started in."""
    here = Path.cwd()
    before = _outputs(here)
    yield
    left = sorted(_outputs(here) - before)
    assert not left, f"{here} has new files: {left}; run what writes them in tmp_path"


def _outputs(folder: Path) -> set[str]:
    kinds = {".csv", ".html", ".json", ".log", ".npy", ".npz", ".out", ".png", ".pt", ".pth"}
    return {one.name for one in folder.iterdir() if one.suffix in kinds or one.name == "checkpoint"}


@pytest.fixture
def dp(tmp_path: Path) -> Dp:
    return Dp(tmp_path)


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with one force-field branch, after six steps."""
    folder = tmp_path_factory.mktemp("pretrained")
    Dp(folder).train(pretrain_input())
    return folder / "model.ckpt-6.pt"


@pytest.fixture(scope="session")
def mft_run(tmp_path_factory: pytest.TempPathFactory, pretrained: Path) -> Path:
    """The folder of a multi-task fine-tuning, frozen to property.pth."""
    folder = tmp_path_factory.mktemp("mft")
    run = Dp(folder)
    log = run.train(mft_input(), "--finetune", str(pretrained))
    (folder / "train.log").write_text(log)
    run("freeze", "--head", "property", "-o", "property")
    return folder


@pytest.fixture
def copied_data(tmp_path: Path) -> Path:
    """A copy of the small folders of the embedded data, to be broken."""
    target = tmp_path / "data"
    for name in ("train", "valid", "aux_valid"):
        shutil.copytree(DATA / name, target / name)
    return target


@pytest.fixture
def shared() -> Path:
    """Folder of the real data, or skip."""
    if not SHARED.is_dir():
        pytest.skip(f"real data not found at {SHARED}; set DEEPMD_MFT_SHARED to their folder")
    return SHARED
