"""The folder of a training as ``dp --pt train`` leaves it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deepmd_mft.errors import UserError
from deepmd_mft.inputs.branches import Branch, read_branches
from deepmd_mft.inputs.systems import list_systems


@dataclass(frozen=True)
class Checkpoint:
    """A kept checkpoint: its file and step."""

    path: Path
    step: int


class TrainingRun:
    """A folder with an input, checkpoints and a learning curve.

    Parameters
    ----------
    folder : Path
        Where ``dp --pt train`` ran; relative paths of the input start here.
    input_file : Path, optional
        ``input.json`` in the folder by default, else ``out.json``, which deepmd-kit writes.
    """

    def __init__(self, folder: Path, input_file: Path | None = None) -> None:
        self.folder = folder
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder; give the folder in which `dp train` ran")
        names = [input_file] if input_file else [folder / "input.json", folder / "out.json"]
        found = next((name for name in names if name.is_file()), None)
        if found is None:
            raise UserError(
                f"{folder} has no input.json (nor out.json); name the input with --input"
            )
        self.input_file = found
        try:
            self.config: dict[str, Any] = json.loads(found.read_text())
        except ValueError as error:
            raise UserError(f"{found} is not JSON ({error})") from None

    @cached_property
    def branches(self) -> list[Branch]:
        """The branches of the input."""
        return read_branches(self.config)

    def property_branch(self, head: str | None = None) -> Branch:
        """Return the property branch; with several, the one that ``head`` names.

        Raises
        ------
        UserError
            If there is none, or it has to be said which.
        """
        kinds = {b.name: b for b in self.branches if b.is_property}
        if head is not None and head not in kinds:
            raise UserError(
                f"{self.input_file} has no property branch '{head}'; it has "
                f"{', '.join(kinds) or 'none'}"
            )
        if len(kinds) != 1 and head is None:
            raise UserError(
                f"{self.input_file} has {len(kinds) or 'no'} property branches"
                + (f" ({', '.join(kinds)}); choose one with --head" if kinds else "")
            )
        return kinds[head] if head is not None else next(iter(kinds.values()))

    def systems(self, branch: Branch, section: str) -> list[Path]:
        """Return the systems of a branch's training or validation data.

        Parameters
        ----------
        branch : Branch
        section : {"training_data", "validation_data"}
        """
        part = branch.data.get(section)
        if not part or not part.get("systems"):
            return []
        systems = part["systems"]
        absolute = (
            str(self.folder / systems)
            if isinstance(systems, str)
            else [str(self.folder / one) for one in systems]
        )
        found = list_systems({**part, "systems": absolute}, branch, section)
        return [Path(one) for one in found] or [Path(str(absolute))]  # LMDB: the path itself

    def checkpoints(self) -> list[Checkpoint]:
        """Return the kept checkpoints in the order of their steps.

        Raises
        ------
        UserError
            If there are none.
        """
        prefix = Path(self.config.get("training", {}).get("save_ckpt", "model.ckpt"))
        pattern = re.compile(re.escape(prefix.name) + r"-(\d+)\.pt$")
        found = [
            Checkpoint(path, int(match[1]))
            for path in (self.folder / prefix.parent).glob(f"{prefix.name}-*.pt")
            if (match := pattern.match(path.name))
        ]
        if not found:
            raise UserError(
                f"{self.folder} has no checkpoint {prefix}-STEP.pt; has the training started, and "
                "is save_ckpt of the input the same?"
            )
        return sorted(found, key=lambda one: one.step)

    def learning_curve(self) -> pd.DataFrame:
        """Return ``lcurve.out`` (``disp_file``) as a table; empty if there is none."""
        path = self.folder / self.config.get("training", {}).get("disp_file", "lcurve.out")
        lines = path.read_text().splitlines() if path.is_file() else []
        if len(lines) < 2:
            return pd.DataFrame()
        names = lines[0].lstrip("# ").split()
        rows = [line.split() for line in lines[1:] if line.strip() and not line.startswith("#")]
        complete = [row for row in rows if len(row) == len(names)]  # the last may be half-written
        return pd.DataFrame(np.array(complete, dtype=float), columns=names)
