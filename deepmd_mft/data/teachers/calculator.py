"""Any ase calculator."""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from deepmd_mft.data.teachers.base import Teacher, collect
from deepmd_mft.data.units import stress_to_virial
from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from deepmd_mft.structures.structure import Structure

__all__ = ["CalculatorTeacher"]

#: What programs raise where they cannot do a structure.
_FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


class CalculatorTeacher(Teacher):
    """An ase calculator, made without arguments.

    Parameters
    ----------
    place : str
        ``MODULE:CLASS``, which is imported: a program that the user names.

    Raises
    ------
    UserError
        If it cannot be imported or made.
    """

    def __init__(self, place: str) -> None:
        module, _, name = place.partition(":")
        self.place, self.name, self.units = place, name, {}
        self._calculator: Any = None
        self._make()
        package = module.partition(".")[0]
        try:
            release = version(package)
        except PackageNotFoundError:
            release = "unknown"
        self.record = {"kind": f"ase calculator {place}", package: release}

    def _make(self) -> Any:
        module, _, name = self.place.partition(":")
        try:
            return getattr(importlib.import_module(module), name)()
        except (ImportError, *_FAILURES) as error:
            raise UserError(
                f"--teacher {self.place}: {error}; write MODULE:CLASS of an ase calculator that is "
                "installed and takes no arguments"
            ) from None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the calculator to the process that uses it."""
        return {**self.__dict__, "_calculator": None}

    def label(self, structures: Sequence[Structure], charges: np.ndarray) -> dict[str, np.ndarray]:
        """Label structures; see :meth:`Teacher.label`."""
        self._calculator = self._calculator or self._make()
        pairs = zip(structures, charges.tolist(), strict=True)
        return collect(structures, [self._one(one, charge) for one, charge in pairs])

    def _one(self, one: Structure, charge: float) -> dict[str, Any] | str:
        atoms = one.atoms()
        atoms.info["charge"] = charge
        atoms.calc = self._calculator
        try:
            labels = {"energy": float(atoms.get_potential_energy()), "force": atoms.get_forces()}
            if one.cell is not None:
                stress = atoms.get_stress(voigt=False)
                labels["virial"] = stress_to_virial(stress[None], one.cell[None]).reshape(9)
        except _FAILURES as error:
            reason = str(error).splitlines()[:1] or [""]
            return f"{self.name} fails ({type(error).__name__}: {reason[0]})"
        return labels
