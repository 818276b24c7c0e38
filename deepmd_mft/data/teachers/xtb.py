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
    from collections.abc import Sequence

    from deepmd_mft.structures.structure import Structure

__all__ = ["METHODS", "PROPERTIES", "XtbTeacher"]

METHODS = {"gfn2": "GFN2-xTB", "gfn1": "GFN1-xTB"}
#: Electronic labels: what they are called in files, and their unit. The dipole's is its norm.
PROPERTIES = {
    "gap": ("gap", "Hartree"),
    "homo": ("homo", "Hartree"),
    "lumo": ("lumo", "Hartree"),
    "dipole": ("mu", "D"),
}
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

        method = self.record["kind"]
        if one.numbers.max() > _HEAVIEST:
            return f"{symbol(one.numbers.max())} is beyond the elements of {method}, H to Rn"
        periodic: dict[str, Any] = {}
        if one.cell is not None:
            if self.name != "gfn1":
                return f"{method} is not reliable for crystals in tblite; take --teacher gfn1"
            periodic = {"lattice": one.cell / BOHR, "periodic": np.ones(3, dtype=bool)}
        if charge and "dipole" in self.properties:
            return "the dipole of a charged molecule depends on the origin"
        unpaired = int(_electrons(one.numbers) - charge) % 2
        try:
            calculator = Calculator(
                method, one.numbers, one.positions / BOHR, charge=charge, uhf=unpaired, **periodic
            )
            calculator.set("verbosity", 0)
            result = calculator.singlepoint()
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
        if self.properties:
            labels |= self._electronic(result)
        return labels

    def _electronic(self, result: Any) -> dict[str, float]:
        """Return the properties asked for, in the units of :data:`PROPERTIES`."""
        orbitals = np.asarray(result.get("orbital-energies"))
        occupied = int(np.ceil(np.asarray(result.get("orbital-occupations")).sum() / 2 - 1e-6))
        homo, lumo = orbitals[occupied - 1], np.nan
        if occupied < len(orbitals):
            lumo = orbitals[occupied]
        dipole = np.linalg.norm(np.asarray(result.get("dipole"))) * _DEBYE
        known = {"gap": lumo - homo, "homo": homo, "lumo": lumo, "dipole": dipole}
        return {PROPERTIES[one][0]: float(known[one]) for one in self.properties}
