"""The folder of a training as ``dp --pt train`` leaves it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deepmd_mft.checkpoints.branch import MAIN
from deepmd_mft.errors import UserError
from deepmd_mft.inputs.branches import Branch, main_ones, read_branches, read_input
from deepmd_mft.inputs.systems import list_systems

#: The best checkpoint that a training keeps is ``best.ckpt-STEP.pt``, beside the others.
BEST_PREFIX = "best.ckpt"


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
        JSON or YAML. By default ``out.json``, deepmd-kit's record of what was trained, whatever
        the input was called; ``input.json`` if there is none.
    """

    def __init__(self, folder: Path, input_file: Path | None = None) -> None:
        self.folder = folder
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder; give the folder in which `dp train` ran")
        names = [input_file] if input_file else [folder / "out.json", folder / "input.json"]
        self.input_file = next((name for name in names if name.is_file()), names[0])
        if not input_file and not self.input_file.is_file():
            raise UserError(
                f"{folder} has no out.json (nor input.json); name the input with --input"
            )
        self.config: dict[str, Any] = read_input(self.input_file)

    @cached_property
    def branches(self) -> list[Branch]:
        """The branches of the input."""
        return read_branches(self.config)

    def property_branch(self, head: str | None = None, name: str | None = None) -> Branch:
        """Return the main property branch, or the one that ``head`` names.

        Parameters
        ----------
        head : str, optional
        name : str, optional
            A property, which decides where nothing else does.

        Raises
        ------
        UserError
            If there is none, or it has to be said which.
        """
        if head is not None:
            kinds = {b.name: b for b in self.branches if b.is_property}
            if head not in kinds:
                raise UserError(
                    f"{self.input_file} has no property branch '{head}'; it has "
                    f"{', '.join(kinds) or 'none'}"
                )
            return kinds[head]
        found = main_ones(self.branches)
        if len(found) > 1 and name is not None:
            found = [branch for branch in found if name in branch.labels] or found
        if not found:
            raise UserError(f"{self.input_file} has no property branches")
        if len(found) > 1:
            listed = ", ".join(f"{b.name}: {', '.join(b.labels)}" for b in found)
            raise UserError(
                f"{self.input_file} has {len(found)} property branches ({listed}), and does not "
                "say which the training is for; choose by --property or --head, or write "
                f'"info": {{"{MAIN}": true}} into that branch of {self.input_file.name}'
            )
        return found[0]

    def system_paths(self, branch: Branch, section: str) -> list[Path]:
        """Return ``systems`` of a branch's data as written, relative paths from this folder."""
        systems = (branch.data.get(section) or {}).get("systems") or []
        return [self.folder / one for one in ([systems] if isinstance(systems, str) else systems)]

    def systems(self, branch: Branch, section: str) -> list[Path]:
        """Return the systems of a branch's training or validation data.

        Parameters
        ----------
        branch : Branch
        section : {"training_data", "validation_data"}

        Raises
        ------
        UserError
            If they are not where they were.
        """
        part = branch.data.get(section) or {}
        if not part.get("systems"):
            return []
        paths = [str(path) for path in self.system_paths(branch, section)]
        absolute = paths[0] if isinstance(part["systems"], str) else paths
        return [Path(one) for one in list_systems({**part, "systems": absolute}, branch, section)]

    def validation_systems(self, branch: Branch) -> list[Path]:
        """Return the systems of a branch's validation data.

        Raises
        ------
        UserError
            If there are none, or they are not where they were.
        """
        systems = self.systems(branch, "validation_data")
        if not systems:
            raise UserError(
                f"{self.input_file}: {branch.where} has no validation_data; give it some, a "
                "checkpoint must not be chosen by training or test data"
            )
        return systems

    def checkpoints(self) -> list[Checkpoint]:
        """Return the kept checkpoints in the order of their steps.

        The best one that a training with ``validation`` in its loss kept is among them.

        Raises
        ------
        UserError
            If there are none.
        """
        prefix = self.folder / self._training.get("save_ckpt", "model.ckpt")
        pattern = re.compile(rf"(?:{re.escape(prefix.name)}|{BEST_PREFIX})-(\d+)\.pt")
        found = [
            Checkpoint(path, int(match[1]))
            for path in (prefix.parent.iterdir() if prefix.parent.is_dir() else ())
            if (match := pattern.fullmatch(path.name))
        ]
        if not found:
            raise UserError(
                f"{self.folder} has no checkpoint {prefix.name}-STEP.pt; has the training "
                "started, and is save_ckpt of the input the same?"
            )
        return sorted(found, key=lambda one: one.step)

    def learning_curve(self) -> pd.DataFrame:
        """Return ``lcurve.out`` (``disp_file``) as a table; empty if there is none.

        A restart goes on from an earlier step and appends: its rows replace those that it repeats
        and all after them, which belong to steps that were given up.
        """
        path = self.folder / self._training.get("disp_file", "lcurve.out")
        lines = path.read_text().splitlines() if path.is_file() else []
        if len(lines) < 2:
            return pd.DataFrame()
        names = lines[0].lstrip("# ").split()
        kept: list[list[float]] = []
        step = names.index("step") if "step" in names else 0
        for line in lines[1:]:
            row = line.split()
            if line.startswith("#") or len(row) != len(names):  # the last may be half-written
                continue
            values = [float(one) for one in row]
            while kept and kept[-1][step] >= values[step]:
                kept.pop()
            kept.append(values)
        return pd.DataFrame(np.array(kept).reshape(-1, len(names)), columns=names)

    @property
    def _training(self) -> dict[str, Any]:
        return dict(self.config.get("training", {}))


def folder_of_run(model: Path) -> Path:
    """Return the folder of the run that a model lies in: its own, or that above."""
    folder = model.absolute().parent
    return folder if (folder / "out.json").is_file() else folder.parent


def best_model(folder: Path) -> Path:
    """Return the model of a run: the selected checkpoint, else the frozen model, else the last.

    Raises
    ------
    UserError
        If the folder has none, or several frozen ones, or the selected one was removed.
    """
    best, frozen = folder / "model.best.pt", sorted(folder.glob("*.pth"))
    if best.is_file():
        return best
    if best.is_symlink():
        raise UserError(
            f"{best} is a link to {best.readlink()}, which is not there any more (a training keeps "
            f"its last checkpoints only); run `dp-mft select {folder}` again"
        )
    if len(frozen) > 1:
        raise UserError(
            f"{folder} has {len(frozen)} frozen models ({', '.join(f.name for f in frozen)}) and "
            f"no model.best.pt; name one, or run `dp-mft select {folder}`"
        )
    if frozen:
        return frozen[0]
    if (folder / "model.ckpt.pt").is_file():
        return folder / "model.ckpt.pt"
    try:
        return TrainingRun(folder).checkpoints()[-1].path
    except UserError:
        raise UserError(
            f"{folder} has no model (model.best.pt, *.pth or a checkpoint): train first, then "
            f"`dp-mft select {folder}`"
        ) from None
