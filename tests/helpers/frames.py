"""Molecules and crystals as readers hand them to writers."""

from __future__ import annotations

import numpy as np

from deepmd_mft.data.frames import Frames, Skipped, Source

RNG = np.random.default_rng(0)


def molecule(n: int, frames: int = 1, name: str = "m", **labels: float) -> Frames:
    """Carbon chain of ``n`` atoms with energy, force and scalar properties."""
    coords = RNG.normal(scale=0.05, size=(frames, n, 3))
    coords[:, :, 0] += np.arange(n) * 1.5
    values = {key: np.full((frames, 1), value) for key, value in labels.items()}
    return Frames(
        numbers=np.array([6] * (n - 1) + [1]),
        coords=coords,
        labels={
            "energy": RNG.normal(size=frames),
            "force": RNG.normal(size=(frames, n, 3)),
            **values,
        },
        ids=[f"{name}{n}:{i}" for i in range(frames)],
        smiles="C" * (n - 1),
    )


def crystal(a: float, name: str = "c", **labels: float) -> Frames:
    """Rock salt with a virial."""
    cell = a / 2 * (1 - np.eye(3))
    return Frames(
        numbers=np.array([11, 17]),
        coords=np.array([[[0, 0, 0], [a / 2] * 3]]),
        cells=cell[None],
        labels={
            "energy": np.array([-a]),
            "force": np.zeros((1, 2, 3)),
            "virial": a * np.eye(3)[None],
            **{key: np.array([[value]]) for key, value in labels.items()},
        },
        ids=[f"{name}{a}"],
    )


def source(*frames: Frames | Skipped) -> Source:
    """A source of given frames."""
    return Source("test", [], {"gap": "eV"}, iter(frames))
