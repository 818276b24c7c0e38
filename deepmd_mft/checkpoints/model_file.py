"""A model as the command line names it: ``[NAME=]FILE[:BRANCH]``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deepmd_mft.checkpoints.named import find_checkpoint
from deepmd_mft.checkpoints.run import best_model
from deepmd_mft.errors import UserError


@dataclass(frozen=True)
class ModelFile:
    """A model as given on the command line: ``[NAME=]FILE[:BRANCH]``."""

    name: str
    path: Path
    branch: str | None = None

    @classmethod
    def parse(cls, text: str, branch: str | None = None) -> ModelFile:
        """Split the text.

        A file whose name holds ``=`` or ``:`` is taken as it is, if it exists.

        Parameters
        ----------
        text : str
            The name is that of the folder and file if left out. A folder stands for its best
            model, see :func:`~.run.best_model`; other names are those of
            :func:`~.named.find_checkpoint`.
        branch : str, optional
            The branch of files without one.

        Raises
        ------
        UserError
            If there is no such file.
        """
        name, equals, rest = text.partition("=")
        if not equals or "/" in name or Path(text).exists():
            name, rest = "", text
        path, colon, said = rest.rpartition(":")
        if not colon or Path(rest).exists():
            path, said = rest, ""
        found = find_checkpoint(Path(path))
        if found.is_dir():
            found = best_model(found)
        if not found.is_file():
            raise UserError(
                f"model {found} does not exist; write a model as [NAME=]FILE[:BRANCH], or a folder "
                "that `dp-mft select` has been through"
            )
        parent = found.absolute().parent.name
        return cls(name or f"{parent}/{found.name}", found, said or branch)
