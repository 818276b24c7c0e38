"""deepmd-kit's registry of pretrained models."""

from __future__ import annotations

import hashlib

from deepmd.pretrained import download

from deepmd_mft.bridge import pretrained


def test_the_registry_is_where_it_was():
    known = pretrained.registered()
    assert "DPA-3.1-3M" in known
    assert all(len(checksum) == 64 for checksum in known.values())


def test_the_place_is_that_of_the_download(tmp_path, monkeypatch):
    """`download_model` returns the file that we look for, without a download."""
    content = b"weights"
    model = {"filename": "m.pt", "sha256": hashlib.sha256(content).hexdigest(), "urls": []}
    monkeypatch.setitem(pretrained.MODEL_REGISTRY, "M", model)
    monkeypatch.setattr(download, "DEFAULT_CACHE_DIR", tmp_path)
    monkeypatch.setattr(pretrained, "DEFAULT_CACHE_DIR", tmp_path)
    (tmp_path / "m.pt").write_bytes(content)
    assert download.download_model("M") == pretrained.downloaded("M")
