"""Names of deepmd-kit's pretrained models on the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from deepmd_mft.bridge import pretrained as bridge
from deepmd_mft.checkpoints.model_file import ModelFile
from deepmd_mft.checkpoints.named import find_checkpoint
from deepmd_mft.cli import main
from deepmd_mft.errors import UserError
from deepmd_mft.files.checksums import file_checksum
from tests.helpers.dp import DATA, ROOT

EMBEDDED = ROOT / "examples" / "qm9_gap" / "pretrained" / "model.pt"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """deepmd-kit's cache, with the embedded checkpoint in place of DPA-3.1-3M."""
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setattr(bridge, "DEFAULT_CACHE_DIR", folder)
    model = {"filename": "DPA-3.1-3M.pt", "sha256": file_checksum(EMBEDDED)}
    monkeypatch.setitem(bridge.MODEL_REGISTRY, "DPA-3.1-3M", model)
    shutil.copy(EMBEDDED, folder / "DPA-3.1-3M.pt")
    return folder


def test_a_downloaded_model_is_found_by_its_name(cache):
    assert find_checkpoint(Path("DPA-3.1-3M")) == cache / "DPA-3.1-3M.pt"
    assert ModelFile.parse("DPA-3.1-3M:GFN2").path == cache / "DPA-3.1-3M.pt"
    assert ModelFile.parse("DPA-3.1-3M:GFN2").branch == "GFN2"


def test_a_file_of_that_name_comes_first(cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(EMBEDDED, "DPA-3.1-3M")
    assert not find_checkpoint(Path("DPA-3.1-3M")).is_absolute()


@pytest.mark.parametrize("name", ["DPA-3.2-5M", "DPA-3.2-5M:SPICE2"])
def test_what_was_not_downloaded_says_how(cache, name):
    with pytest.raises(UserError, match="dp pretrained download DPA"):
        ModelFile.parse(name)


def test_a_broken_download_is_refused(cache):
    with (cache / "DPA-3.1-3M.pt").open("ab") as file:
        file.write(b"more")
    with pytest.raises(UserError, match="another SHA-256"):
        find_checkpoint(Path("DPA-3.1-3M"))


def test_an_input_by_name(cache, tmp_path, capsys):
    out = tmp_path / "input.json"
    template = ROOT / "input_templates" / "small" / "input_ft.json"
    words = ["input", str(template), "--checkpoint", "DPA-3.1-3M", "-o", str(out), "--no-tighten"]
    assert main([*words, "--train", str(DATA / "train"), "--valid", str(DATA / "valid")]) == 0
    record = json.loads(out.read_text())["_dp_mft_input"]
    assert record["checkpoint_sha256"] == file_checksum(EMBEDDED)
    assert f"--finetune {cache / 'DPA-3.1-3M.pt'}" in capsys.readouterr().err


def test_a_name_that_nobody_knows(tmp_path, capsys):
    words = ["input", str(ROOT / "input_templates" / "input_ft.json"), "--checkpoint", "DPA-9"]
    assert main([*words, "-o", str(tmp_path / "input.json")]) == 1
    assert "DPA-9 does not exist" in capsys.readouterr().err
