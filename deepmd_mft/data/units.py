"""Energies to eV, lengths to Angstrom, forces to eV/A, stresses to virials.

Numbers from CODATA through :mod:`scipy.constants`, as dpdata takes them.
"""

from __future__ import annotations

import numpy as np
from scipy import constants

from deepmd_mft.errors import UserError

__all__ = ["energy_factor", "force_factor", "length_factor", "stress_to_virial"]

HARTREE = constants.physical_constants["Hartree energy in eV"][0]
BOHR = constants.physical_constants["Bohr radius"][0] / constants.angstrom
_KCAL_MOL = constants.kilo * constants.calorie / constants.Avogadro / constants.eV
_KJ_MOL = constants.kilo / constants.Avogadro / constants.eV
_GPA = constants.giga * constants.angstrom**3 / constants.eV

_ENERGIES = {
    "ev": 1.0,
    "mev": 1e-3,
    "hartree": HARTREE,
    "ha": HARTREE,
    "rydberg": HARTREE / 2.0,
    "ry": HARTREE / 2.0,
    "kcal/mol": _KCAL_MOL,
    "kj/mol": _KJ_MOL,
}
_LENGTHS = {"angstrom": 1.0, "a": 1.0, "bohr": BOHR, "nm": 10.0}
_STRESSES = {"ev/a^3": 1.0, "gpa": _GPA, "kbar": 0.1 * _GPA}


def _look_up(table: dict[str, float], unit: str, quantity: str) -> float:
    try:
        return table[unit.strip().lower()]
    except KeyError:
        raise UserError(f"unknown {quantity} unit {unit!r}; known are {', '.join(table)}") from None


def energy_factor(unit: str) -> float:
    """Return eV per ``unit``."""
    return _look_up(_ENERGIES, unit, "energy")


def length_factor(unit: str) -> float:
    """Return Angstrom per ``unit``."""
    return _look_up(_LENGTHS, unit, "length")


def force_factor(unit: str) -> float:
    """Return eV/A per ``unit``, written energy/length, for example ``kcal/mol/A``."""
    energy, _, length = unit.rpartition("/")
    if not energy:
        raise UserError(f"a force unit reads energy/length, for example hartree/bohr; got {unit!r}")
    return energy_factor(energy) / length_factor(length)


def stress_to_virial(stress: np.ndarray, cells: np.ndarray, unit: str = "eV/A^3") -> np.ndarray:
    """Virial in eV with deepmd-kit's sign: minus the volume times the stress.

    Parameters
    ----------
    stress : np.ndarray
        Stress tensors with ase's sign (positive under tension), shape ``nf x 3 x 3``, or in
        Voigt order xx, yy, zz, yz, xz, xy, shape ``nf x 6``.
    cells : np.ndarray
        Cells in Angstrom, shape ``nf x 3 x 3``.
    unit : str
        Unit of ``stress``.

    Returns
    -------
    np.ndarray
        Virials in eV, shape ``nf x 3 x 3``.
    """
    stress = np.asarray(stress, dtype=np.float64)
    if stress.shape[-1] == 6:
        stress = stress[:, [0, 5, 4, 5, 1, 3, 4, 3, 2]]
    volume = np.abs(np.linalg.det(cells))
    factor = _look_up(_STRESSES, unit, "stress")
    return -factor * volume[:, None, None] * stress.reshape(-1, 3, 3)
