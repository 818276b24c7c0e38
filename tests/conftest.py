"""Fixtures that several rooms use."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.helpers.dp import DATA, ROOT, Dp, mft_input, pretrain_input

SHARED = Path(os.environ.get("DEEPMD_MFT_SHARED", ROOT.parent / "shared")) / "data"


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep what is remembered between trainings out of the home folder."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


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
