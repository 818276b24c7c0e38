"""SPICE 1 and 2 (Eastman et al., Sci. Data 10, 11 (2023); wB97M-D3(BJ)/def2-TZVPPD).

One HDF5 group a molecule: ``atomic_numbers``, ``conformations`` (nconf x natoms x 3, bohr),
``dft_total_energy`` (Hartree), ``dft_total_gradient`` (Hartree/bohr), ``smiles``, ``subset``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deepmd_mft.data.frames import Frames, Skipped, Source
from deepmd_mft.data.readers.hdf5 import groups, open_hdf5, read_array, read_text
from deepmd_mft.data.units import BOHR, HARTREE
from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import h5py

    from deepmd_mft.data.readers import ReadOptions

__all__ = ["read_spice"]

_NEEDED = ("atomic_numbers", "conformations", "dft_total_energy")


def read_spice(path: Path, options: ReadOptions) -> Source:
    """Read energies and forces; conformers of one molecule share a group."""
    options.refuse_properties("spice")
    with open_hdf5(path) as handle:
        _, first = next(groups(handle), ("", {}))
        missing = [key for key in _NEEDED if key not in first]
        if missing:
            raise UserError(f"{path}: the first group has no {missing[0]}; is this a SPICE file?")
    return Source("spice", [path], {}, _frames(path), notes=["wB97M-D3(BJ)/def2-TZVPPD"])


def _frames(path: Path) -> Iterator[Frames | Skipped]:
    with open_hdf5(path) as handle:
        for name, group in groups(handle):
            yield _molecule(name, group)


def _molecule(name: str, group: h5py.Group) -> Frames | Skipped:
    coords = read_array(group, "conformations") * BOHR
    if not len(coords):
        return Skipped(name, "no conformations")
    labels = {"energy": read_array(group, "dft_total_energy") * HARTREE}
    if "dft_total_gradient" in group:
        labels["force"] = read_array(group, "dft_total_gradient") * (-HARTREE / BOHR)
    return Frames(
        numbers=read_array(group, "atomic_numbers").astype(np.int64),
        coords=coords,
        labels=labels,
        ids=[f"{name}/{i}" for i in range(len(coords))],
        smiles=read_text(group, "smiles") if "smiles" in group else "",
        group=name,
    )
