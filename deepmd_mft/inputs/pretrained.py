"""The branches of a checkpoint that an input may start from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deepmd.utils.model_branch_dict import get_model_dict

from deepmd_mft.checkpoints.branch import SINGLE
from deepmd_mft.checkpoints.file import read_model_params
from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Pretrained:
    """A checkpoint to fine-tune.

    Attributes
    ----------
    path : Path
    branches : dict of dict
        The JSON of its branches by name; deepmd-kit calls that of a single-task model ``Default``.
    aliases : dict of str
        Names of the branches by every name that they go by.
    """

    path: Path
    branches: dict[str, dict[str, Any]]
    aliases: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> Pretrained:
        """Read a checkpoint.

        Raises
        ------
        UserError
            If it is none.
        """
        params = read_model_params(path)
        if "model_dict" not in params:
            return cls(path, {SINGLE: params}, {SINGLE: SINGLE})
        branches = params["model_dict"]
        return cls(path, branches, get_model_dict(branches)[0])

    @property
    def first(self) -> dict[str, Any]:
        """A branch, for what all have in common: descriptor, type map, ``dim_case_embd``."""
        return next(iter(self.branches.values()))

    def find(self, head: str) -> str | None:
        """Return the name of a branch by any of its names; None if there is none."""
        return self.aliases.get(head)

    def get(self, head: str) -> str:
        """Return the name of a branch by any of its names; if there is only one, that.

        Raises
        ------
        UserError
            If there is none.
        """
        if head in self.aliases:
            return self.aliases[head]
        if len(self.branches) == 1:
            return next(iter(self.branches))
        raise UserError(
            f"{self.path} has no head '{head}'; it has {', '.join(self.branches)}. Choose with "
            "--aux-head: MFT wants the force field whose data resemble the target (SPICE2 for "
            "molecules, OMat24 for crystals)"
        )
