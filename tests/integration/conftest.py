"""Data for heads of every kind."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from tests.helpers.dp import DATA


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """The small property sets, with labels made for these tests."""
    root = tmp_path_factory.mktemp("labelled")
    rng = np.random.default_rng(0)
    for name in ("train", "valid"):
        shutil.copytree(DATA / name, root / name)
        folder = next((root / name).glob("set.*"))
        gap = np.load(folder / "gap.npy")
        np.save(folder / "mu.npy", np.abs(rng.normal(size=gap.shape)))
        np.save(folder / "r2.npy", 1000 + 100 * rng.normal(size=gap.shape))
        np.save(folder / "wide.npy", (gap > np.median(gap)).astype(float))
    return root
