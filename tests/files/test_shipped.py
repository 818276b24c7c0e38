"""Templates and the embedded checkpoint are found by name, from any folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepmd_mft.checkpoints.model_file import ModelFile
from deepmd_mft.checkpoints.named import find_checkpoint
from deepmd_mft.errors import UserError
from deepmd_mft.files.checksums import file_checksum
from deepmd_mft.files.shipped import find_template, template_names
from tests.helpers.dp import ROOT

EMBEDDED = ROOT / "examples" / "qm9_gap" / "pretrained" / "model.pt"


def test_every_template_has_a_name_of_its_own():
    files = sorted(one.resolve() for one in (ROOT / "input_templates").rglob("*.json"))
    assert sorted(one.resolve() for one in template_names().values()) == files
    for name, file in (
        ("mft", "input_mft.json"),
        ("small/ft", "small/input_ft.json"),
        ("qm9/homo/mft", "qm9/homo/input_mft.json"),
        ("small/pretrain", "small/pretrain.json"),
    ):
        assert find_template(Path(name)).samefile(ROOT / "input_templates" / file)


def test_files_come_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("mft", "embedded"):
        (tmp_path / name).write_text("own")
    assert find_template(Path("mft")).read_text() == "own"
    assert find_checkpoint(Path("embedded")).read_text() == "own"


def test_unknown_names_are_told_the_known_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("small/input_ft.json", "small", "../small/ft", "nothing"):
        with pytest.raises(UserError, match=r"no template is called so; there are .*small/ft, "):
            find_template(Path(name))


def test_the_embedded_checkpoint_is_a_model_like_others(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert file_checksum(find_checkpoint(Path("embedded"))) == file_checksum(EMBEDDED)
    found = ModelFile.parse("start=embedded:GFN2")
    assert (found.name, found.branch, found.path.samefile(EMBEDDED)) == ("start", "GFN2", True)
    with pytest.raises(UserError, match="embeded does not exist"):
        ModelFile.parse("embeded")
