"""GFN2-xTB and GFN1-xTB by tblite: energies, forces, and cheap electronic labels.

C. Bannwarth, S. Ehlert and S. Grimme, J. Chem. Theory Comput. 15, 1652 (2019), and S. Grimme,
C. Bannwarth and P. Shushkov, J. Chem. Theory Comput. 13, 1989 (2017). Elements H to Rn; some
milliseconds a small molecule. Crystals by GFN1 only: at the Gamma point, and GFN2's are not to be
relied on in tblite.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import constants

from deepmd_mft.data.teachers.base import Teacher, collect
from deepmd_mft.data.units import BOHR, HARTREE
from deepmd_mft.errors import UserError, missing_package
from deepmd_mft.structures.elements import symbol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from deepmd_mft.structures.structure import Structure

__all__ = ["METHODS", "PROPERTIES", "XtbTeacher"]

METHODS = {"gfn2": "GFN2-xTB", "gfn1": "GFN1-xTB"}
#: Electronic labels: what they are called in files, and their unit. The dipole's is its norm, the
#: polarizability a third of the trace of its tensor; the extent is that of the atoms' populations,
#: ``sum_i (Z_i - q_i) |r_i - r_com|^2`` with Mulliken's charges q_i, the largest part of <R^2>.
PROPERTIES = {
    "gap": ("gap", "Hartree"),
    "homo": ("homo", "Hartree"),
    "lumo": ("lumo", "Hartree"),
    "dipole": ("mu", "D"),
    "polarizability": ("alpha", "Bohr^3"),
    "extent": ("r2", "Bohr^2"),
}
_OF_MOLECULES = ("dipole", "polarizability", "extent")
_FIELD = 1e-3  # Hartree / (e Bohr), up and down along each axis
_HEAVIEST = 86
_DEBYE = constants.e * constants.physical_constants["Bohr radius"][0] * constants.c * 1e21


def _electrons(numbers: np.ndarray) -> int:
    """Return a number of electrons of the parity of xTB's, whose lanthanides have three each."""
    lanthanides = (numbers >= 57) & (numbers <= 71)
    return int(np.where(lanthanides, 3, numbers).sum())


class XtbTeacher(Teacher):
    """An xTB Hamiltonian.

    Parameters
    ----------
    name : str
        A key of :data:`METHODS`.
    properties : sequence of str
        Keys of :data:`PROPERTIES`.

    Raises
    ------
    UserError
        If tblite is missing, or there is no such property.
    """

    def __init__(self, name: str, properties: Sequence[str] = ()) -> None:
        try:
            import tblite  # noqa: F401, PLC0415
        except ImportError as error:
            raise missing_package(f"the teacher {name} needs tblite", "labels") from error
        unknown = [one for one in properties if one not in PROPERTIES]
        if unknown:
            raise UserError(
                f"--label {','.join(properties)}: no label {unknown[0]!r}; there are "
                f"{', '.join(PROPERTIES)}"
            )
        self.name = name
        self.properties = list(properties)
        self.units = dict(PROPERTIES[one] for one in properties)
        self.record = {"kind": METHODS[name], "tblite": version("tblite")}

    def label(self, structures: Sequence[Structure], charges: np.ndarray) -> dict[str, np.ndarray]:
        """Label structures; see :meth:`Teacher.label`."""
        pairs = zip(structures, charges.tolist(), strict=True)
        return collect(structures, [self._one(one, charge) for one, charge in pairs])

    def _one(self, one: Structure, charge: float) -> dict[str, Any] | str:
        """Return the labels of a structure, or why there are none."""
        from tblite.interface import Calculator  # noqa: PLC0415

        refused = self._refusal(one, charge)
        if refused:
            return refused
        method = self.record["kind"]
        periodic: dict[str, Any] = {}
        if one.cell is not None:
            periodic = {"lattice": one.cell / BOHR, "periodic": np.ones(3, dtype=bool)}
        unpaired = int(_electrons(one.numbers) - charge) % 2

        def singlepoint(field: list[float] | None = None) -> Any:
            calculator = Calculator(
                method, one.numbers, one.positions / BOHR, charge=charge, uhf=unpaired, **periodic
            )
            calculator.set("verbosity", 0)
            if field is not None:
                calculator.add("electric-field", field)
            return calculator.singlepoint()

        try:
            result = singlepoint()
            electronic = self._electronic(one, result, singlepoint)
        except RuntimeError as error:
            reason = (str(error).splitlines() or [""])[0]
            what = "does not converge" if "converge" in reason else "fails"
            return f"{method} {what} ({reason})"
        labels = {
            "energy": float(result.get("energy")) * HARTREE,
            "force": -np.asarray(result.get("gradient")) * HARTREE / BOHR,
        }
        if one.cell is not None:
            labels["virial"] = -np.asarray(result.get("virial")).reshape(9) * HARTREE
        return labels | electronic

    def _refusal(self, one: Structure, charge: float) -> str:
        """Return why a structure is not computed at all, or nothing."""
        method = self.record["kind"]
        if one.numbers.max() > _HEAVIEST:
            return f"{symbol(one.numbers.max())} is beyond the elements of {method}, H to Rn"
        if one.cell is not None:
            if self.name != "gfn1":
                return f"{method} is not reliable for crystals in tblite; take --teacher gfn1"
            for name in _OF_MOLECULES:
                if name in self.properties:
                    return f"--label {name} is for molecules, and this is a crystal"
        if charge and "dipole" in self.properties:
            return "the dipole of a charged molecule depends on the origin"
        return ""

    def _electronic(
        self, one: Structure, result: Any, singlepoint: Callable[[list[float]], Any]
    ) -> dict[str, float]:
        """Return the properties asked for, in the units of :data:`PROPERTIES`."""
        known = self._orbitals(result)
        known["dipole"] = np.linalg.norm(np.asarray(result.get("dipole"))) * _DEBYE
        if "polarizability" in self.properties:
            known["polarizability"] = _polarizability(singlepoint)
        if "extent" in self.properties:
            known["extent"] = _extent(one, np.asarray(result.get("charges")))
        return {PROPERTIES[name][0]: float(known[name]) for name in self.properties}

    @staticmethod
    def _orbitals(result: Any) -> dict[str, float]:
        orbitals = np.asarray(result.get("orbital-energies"))
        occupied = int(np.ceil(np.asarray(result.get("orbital-occupations")).sum() / 2 - 1e-6))
        homo, lumo = orbitals[occupied - 1], np.nan
        if occupied < len(orbitals):
            lumo = orbitals[occupied]
        return {"gap": lumo - homo, "homo": homo, "lumo": lumo}


def _polarizability(singlepoint: Callable[[list[float]], Any]) -> float:
    """Return the isotropic polarizability in Bohr^3, by finite fields."""
    total = 0.0
    for axis in range(3):
        up, down = (
            np.asarray(singlepoint([sign * _FIELD * (k == axis) for k in range(3)]).get("dipole"))
            for sign in (1, -1)
        )
        total += (up - down)[axis] / (2 * _FIELD)
    return total / 3


def _extent(one: Structure, charges: np.ndarray) -> float:
    """Return the second moment of the atoms' populations about the centre of mass, in Bohr^2."""
    away = (one.positions - one.atoms().get_center_of_mass()) / BOHR
    return float(((one.numbers - charges) * (away**2).sum(axis=1)).sum())
