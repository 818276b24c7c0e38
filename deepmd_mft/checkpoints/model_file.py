"""A model as the command line names it: ``[NAME=]FILE[:BRANCH]``."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from deepmd_mft.checkpoints.named import find_checkpoint
from deepmd_mft.checkpoints.run import best_model
from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence


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

    @classmethod
    def parse_all(cls, texts: Sequence[str], branch: str | None = None) -> list[ModelFile]:
        """Split several texts; files of one name are seeds or folds of one model.

        Files without a name that would be called alike, as of ``ft/seed1`` and ``mft/seed1``, are
        called as they were given.

        Raises
        ------
        UserError
            If there is no such file, or one is given twice under one name.
        """
        found = [cls.parse(text, branch) for text in texts]
        known: dict[tuple[str, Path, str | None], str] = {}
        for text, one in zip(texts, found, strict=True):
            key = (one.name, one.path.resolve(), one.branch)
            if key in known:
                raise UserError(
                    f"{known[key]} and {text} are the same model, which is no second seed; give it "
                    "once, or under two names"
                )
            known[key] = text
        names = Counter(one.name for one in found)
        return [
            # a name that was given has no slash
            replace(one, name=text) if "/" in one.name and names[one.name] > 1 else one
            for text, one in zip(texts, found, strict=True)
        ]
