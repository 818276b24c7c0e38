"""The force field of a pretrained checkpoint."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np

from deepmd_mft.checkpoints.branch import branches_of, choose_branch, is_force_field
from deepmd_mft.checkpoints.file import read_model_params
from deepmd_mft.data.teachers.base import REASON, Teacher
from deepmd_mft.errors import UserError
from deepmd_mft.files.checksums import file_checksum
from deepmd_mft.inference.predictor import Predictor
from deepmd_mft.structures.structure_set import StructureSet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deepmd_mft.checkpoints.model_file import ModelFile
    from deepmd_mft.structures.structure import Structure

__all__ = ["CheckpointTeacher"]


class CheckpointTeacher(Teacher):
    """A force-field branch of a ``.pt`` checkpoint, or a frozen force field.

    Parameters
    ----------
    model : ModelFile
        With its branch; the only force field if it names none.

    Raises
    ------
    UserError
        If there is no force field, or there are several and none is named.
    """

    alone = False
    piece = 2000  # frozen models are prepared for many atoms at a time
    units: dict[str, str] = {}  # noqa: RUF012  (energies and forces only)

    def __init__(self, model: ModelFile) -> None:
        branch = model.branch
        if model.path.suffix != ".pth":
            params = read_model_params(model.path)
            branch = choose_branch(params, model.path, branch, _force_fields)
            if not is_force_field(branches_of(params)[branch]):
                raise UserError(
                    f"branch '{branch}' of {model.path} is no force field, and cannot label "
                    "energies and forces; name another one as FILE:BRANCH, or --teacher gfn2"
                )
        self.predictor = Predictor.load(model.path, branch or None)
        if not self.predictor.is_force_field:
            raise UserError(f"{model.path} is no force field; take another teacher")
        self.name = "pretrained"
        self.elements = self.predictor.type_map
        self.record = {
            "kind": "checkpoint",
            "checkpoint": str(model.path),
            "checkpoint_sha256": file_checksum(model.path),
            "branch": branch,
            "deepmd-kit": version("deepmd-kit"),
        }

    def label(self, structures: Sequence[Structure], charges: np.ndarray) -> dict[str, np.ndarray]:
        """Label structures; see :meth:`Teacher.label`. The network knows no charges."""
        del charges
        found = self.predictor.predict(self.predictor.batches(StructureSet.of("pool", structures)))
        molecules = np.array([one.cell is None for one in structures])
        found["virial"][molecules] = np.nan
        found["energy"] = found["energy"][:, 0]
        return {**found, REASON: np.full(len(structures), "")}


def _force_fields(branches: dict[str, dict]) -> list[str]:
    return [name for name, branch in branches.items() if is_force_field(branch)]
