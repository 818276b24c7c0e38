"""SPICE 1 and 2 (Eastman et al., Sci. Data 10, 11 (2023); wB97M-D3(BJ)/def2-TZVPPD).

One HDF5 group a molecule: ``atomic_numbers``, ``conformations`` (nconf x natoms x 3, bohr),
``dft_total_energy`` (Hartree), ``dft_total_gradient`` (Hartree/bohr), ``smiles``, ``subset``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deepmd_mft.data.frames import Frames, Skipped, Source
from deepmd_mft.data.readers.hdf5 import open_hdf5
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
    if options.properties:
        raise UserError("the spice reader takes energies and forces only, no --property")
    with open_hdf5(path) as handle:
        first = next(iter(handle.values()), None)
        missing = [key for key in _NEEDED if first is None or key not in first]
        if missing:
            raise UserError(f"{path}: the first group has no {missing[0]}; is this a SPICE file?")
    return Source("spice", [path], {}, _frames(path), notes=["wB97M-D3(BJ)/def2-TZVPPD"])


def _frames(path: Path) -> Iterator[Frames | Skipped]:
    with open_hdf5(path) as handle:
        name = ""
        try:
            for name, group in handle.items():
                yield _molecule(name, group)
        except (KeyError, OSError) as error:
            raise UserError(f"{path}, group {name!r}: {error}; is the file damaged?") from error


def _molecule(name: str, group: h5py.Group) -> Frames | Skipped:
    coords = group["conformations"][()].astype(np.float64) * BOHR
    if not len(coords):
        return Skipped(name, "no conformations")
    labels = {"energy": group["dft_total_energy"][()].astype(np.float64) * HARTREE}
    if "dft_total_gradient" in group:
        gradient = group["dft_total_gradient"][()].astype(np.float64)
        labels["force"] = gradient * (-HARTREE / BOHR)
    return Frames(
        numbers=group["atomic_numbers"][()].astype(np.int64),
        coords=coords,
        labels=labels,
        ids=[f"{name}/{i}" for i in range(len(coords))],
        smiles=_text(group["smiles"]) if "smiles" in group else "",
        group=name,
    )


def _text(dataset: h5py.Dataset) -> str:
    value = np.asarray(dataset[()]).reshape(-1)[0]
    return value.decode() if isinstance(value, bytes) else str(value)
