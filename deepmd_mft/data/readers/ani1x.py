"""ANI-1x and Transition-1x, both HDF5 with one group a composition or reaction.

ANI-1x (Smith et al., Sci. Data 7, 134 (2020)): ``coordinates`` in Angstrom and several levels
of theory, ``wb97x_dz.energy`` and ``wb97x_dz.forces`` in Hartree and Hartree/A; NaN where a
level was not computed.

Transition-1x (Schreiner et al., Sci. Data 9, 779 (2022)): ``data``, ``train``, ``val``, ``test``
-> formula -> reaction -> ``positions`` in Angstrom, ``wB97x_6-31G(d).energy`` in eV and
``.forces`` in eV/A.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deepmd_mft.data.frames import Frames, Skipped, Source
from deepmd_mft.data.readers.hdf5 import group_of, groups, open_hdf5, read_array
from deepmd_mft.data.units import HARTREE
from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import h5py

    from deepmd_mft.data.readers import ReadOptions

__all__ = ["read_ani1x", "read_transition1x"]

_T1X_LEVEL = "wB97x_6-31G(d)"


def read_ani1x(path: Path, options: ReadOptions) -> Source:
    """Read one level of theory of ANI-1x (``options.level``, default ``wb97x_dz``)."""
    options.refuse_properties("ani1x")
    level = options.level or "wb97x_dz"
    with open_hdf5(path) as handle:
        _, first = next(groups(handle), ("", {}))
        keys = list(first)
    if f"{level}.energy" not in keys:
        known = sorted(key.removesuffix(".energy") for key in keys if key.endswith(".energy"))
        raise UserError(f"{path}: no level {level!r}; there are {', '.join(known) or 'none'}")
    return Source("ani1x", [path], {}, _ani_frames(path, level), notes=[f"level {level}"])


def _ani_frames(path: Path, level: str) -> Iterator[Frames | Skipped]:
    with open_hdf5(path) as handle:
        for name, group in groups(handle):
            labels = {"energy": f"{level}.energy", "force": f"{level}.forces"}
            yield _block(name, group, "coordinates", labels, HARTREE)


def read_transition1x(path: Path, options: ReadOptions) -> Source:
    """Read Transition-1x: ``options.level`` names the part, ``data`` (all) by default.

    The frames of one reaction stay together in a split.
    """
    options.refuse_properties("transition1x")
    part = options.level or "data"
    with open_hdf5(path) as handle:
        if part not in handle:
            raise UserError(f"{path}: no part {part!r}; there are {', '.join(handle)}")
    frames = _t1x_frames(path, part)
    return Source("transition1x", [path], {}, frames, notes=["wB97X/6-31G(d)", f"part {part}"])


def _t1x_frames(path: Path, part: str) -> Iterator[Frames | Skipped]:
    labels = {"energy": f"{_T1X_LEVEL}.energy", "force": f"{_T1X_LEVEL}.forces"}
    with open_hdf5(path) as handle:
        for formula, reactions in groups(group_of(handle, part)):
            for reaction, group in groups(reactions):
                yield _block(f"{formula}/{reaction}", group, "positions", labels, 1.0)


def _block(
    name: str, group: h5py.Group, coords: str, labels: dict[str, str], energy: float
) -> Frames | Skipped:
    """Read one group; ``energy`` is eV per unit of energy, lengths are in Angstrom."""
    positions = read_array(group, coords)
    if not len(positions):
        return Skipped(name, "no conformations")
    return Frames(
        numbers=read_array(group, "atomic_numbers").astype(np.int64),
        coords=positions,
        labels={
            label: read_array(group, key) * energy for label, key in labels.items() if key in group
        },
        ids=[f"{name}/{i}" for i in range(len(positions))],
        group=name,
    )
