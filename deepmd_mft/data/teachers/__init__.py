"""Teachers: what labels structures that have no labels; :func:`open_teacher` finds one by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deepmd_mft.data.teachers.base import Teacher
from deepmd_mft.data.teachers.calculator import CalculatorTeacher
from deepmd_mft.data.teachers.checkpoint import CheckpointTeacher
from deepmd_mft.data.teachers.xtb import METHODS, PROPERTIES, XtbTeacher
from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deepmd_mft.checkpoints.model_file import ModelFile

__all__ = ["PRETRAINED", "PROPERTIES", "Teacher", "open_teacher"]

#: The force field of the checkpoint itself.
PRETRAINED = "pretrained"


def open_teacher(name: str, checkpoint: ModelFile, properties: Sequence[str] = ()) -> Teacher:
    """Return a teacher.

    Parameters
    ----------
    name : str
        ``pretrained``; ``gfn2`` or ``gfn1``; or an ase calculator as ``MODULE:CLASS``.
    checkpoint : ModelFile
        The pretrained model.
    properties : sequence of str
        What to label beside energies and forces, of
        :data:`~deepmd_mft.data.teachers.xtb.PROPERTIES`.

    Raises
    ------
    UserError
        If there is no such teacher, or it gives no such property.
    """
    if name in METHODS:
        return XtbTeacher(name, properties)
    if properties:
        raise UserError(
            f"--label {','.join(properties)}: the teacher '{name}' gives energies and forces only; "
            "take --teacher gfn2 for these"
        )
    if name == PRETRAINED:
        return CheckpointTeacher(checkpoint)
    if ":" in name:
        return CalculatorTeacher(name)
    raise UserError(
        f"--teacher {name}: no such teacher; there are {PRETRAINED}, {', '.join(METHODS)}, and ase "
        "calculators as MODULE:CLASS, for example chgnet.model.dynamics:CHGNetCalculator"
    )
