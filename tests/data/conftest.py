"""The way to the shared real data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("DEEPMD_MFT_SHARED", ROOT.parent / "shared")) / "data"


@pytest.fixture
def shared() -> Path:
    """Folder of the real data, or skip."""
    if not SHARED.is_dir():
        pytest.skip(f"real data not found at {SHARED}; set DEEPMD_MFT_SHARED to their folder")
    return SHARED
