"""The templates of a plan: what each strategy is called, and what it starts from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepmd_mft.checkpoints.branch import branches_of
from deepmd_mft.errors import UserError
from deepmd_mft.files.checksums import file_checksum
from deepmd_mft.files.shipped import find_template
from deepmd_mft.inputs.branches import flat, read_input
from deepmd_mft.inputs.paths import absolute_in, with_paths

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Sizes of neighbour lists, which leave the network as it is.
_LISTS = {"e_sel", "a_sel", "sel", "sel_reduce_factor"}


@dataclass(frozen=True)
class Strategy:
    """A template and its name.

    Attributes
    ----------
    name : str
        Part of the names of its runs.
    path : Path
    config : dict
        The template, or a filled input; its paths hold from everywhere.
    finetunes : bool
        Whether it starts from the checkpoint: a model or branch has ``finetune_head``.
    """

    name: str
    path: Path
    config: dict[str, Any]
    finetunes: bool

    @property
    def is_multi_task(self) -> bool:
        """Whether it has branches."""
        return "model_dict" in self.config["model"]


def read_strategies(
    texts: Iterable[str], checkpoint: Path | None
) -> tuple[list[Strategy], Path | None]:
    """Read ``[NAME=]FILE`` texts.

    Parameters
    ----------
    texts : iterable of str
        The name is that of the file, without ``input_``, if left out.
    checkpoint : Path, optional
        What those with ``finetune_head`` start from; left out, what they were filled from.

    Returns
    -------
    strategies : list of Strategy
    checkpoint : Path or None
        None if all start from random weights.

    Raises
    ------
    UserError
        If a file is no input, two strategies have one name, or the checkpoint and the templates
        do not go together.
    """
    found: dict[str, Strategy] = {}
    for text in texts:
        name, path = _split(text)
        if name in found:
            raise UserError(
                f"--template: {found[name].path} and {path} are both called {name}; name them, as "
                "in --template ft=input.json"
            )
        config = read_input(path)
        heads = [one.get("finetune_head") for one in branches_of(config["model"]).values()]
        found[name] = Strategy(
            name, path, with_paths(config, absolute_in(path.absolute().parent)), any(heads)
        )
    finetuned = [one for one in found.values() if one.finetunes]
    if checkpoint is None and finetuned:
        checkpoint = _filled_from(finetuned)
    if checkpoint is not None and not finetuned:
        raise UserError(
            f"no template starts from {checkpoint}: none has finetune_head (RANDOM for a new head) "
            "in its model or a branch; write it there, or leave out --checkpoint"
        )
    return list(found.values()), checkpoint


def _filled_from(strategies: list[Strategy]) -> Path:
    """Return the checkpoint that all these inputs were filled from.

    Raises
    ------
    UserError
        If one does not say it, it has changed or is gone, or they were filled from several.
    """
    found: dict[str, Path] = {}
    for one in strategies:
        record = one.config.get("_dp_mft_input", {})
        if "checkpoint" not in record:
            raise UserError(
                f"{one.path} has finetune_head, so it starts from a checkpoint: give --checkpoint "
                "FILE, or a template without that key"
            )
        said, checksum = Path(record["checkpoint"]), record["checkpoint_sha256"]
        beside = one.path.absolute().parent / said.name  # where `dp-mft input` puts its copy
        right = (path for path in (said, beside) if path.is_file())
        path = next((path for path in right if file_checksum(path) == checksum), None)
        if path is None:
            raise UserError(
                f"{one.path} was filled from {said}, which is not there any more, or has changed: "
                "give --checkpoint FILE"
            )
        found.setdefault(checksum, path)
    if len(found) > 1:
        listed = ", ".join(map(str, found.values()))
        raise UserError(f"the templates were filled from different checkpoints, {listed}: give one")
    return next(iter(found.values()))


def _split(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not equals or "/" in name or Path(text).exists():
        name, path = Path(text).stem.removeprefix("input_"), text
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise UserError(
            f"--template {text}: '{name}' becomes part of the names of folders; name it with "
            "letters, digits, dots, - and _, as in --template ft=FILE"
        )
    return name, find_template(Path(path))


def with_seed(config: dict[str, Any], seed: int) -> dict[str, Any]:
    """Return an input of which everything that is drawn has one seed."""

    def change(part: Any) -> Any:
        if isinstance(part, list):
            return [change(one) for one in part]
        if not isinstance(part, dict):
            return part
        return {key: seed if key == "seed" else change(value) for key, value in part.items()}

    found = dict(change(config))
    found["training"]["seed"] = seed
    for branch in branches_of(found["model"]).values():
        for part in (branch.get("descriptor"), branch["fitting_net"]):
            if isinstance(part, dict) and part.get("type") != "hybrid":  # its parts have seeds
                part["seed"] = seed
    return found


def unlike(strategies: Iterable[Strategy], checkpoint: dict[str, Any]) -> list[str]:
    """Say which strategies from scratch train another network than the checkpoint's.

    Parameters
    ----------
    strategies : iterable of Strategy
    checkpoint : dict
        Its descriptor.
    """
    theirs = flat(checkpoint)
    notes = []
    for one in strategies:
        mine = {} if one.finetunes else flat(_descriptor(one.config["model"]))
        differing = [
            f"{key} {value} (the checkpoint {theirs[key]})"
            for key, value in mine.items()
            if key in theirs and theirs[key] != value
            if key.split("/")[-1] not in {"seed", "trainable", *_LISTS}
        ]
        if differing:
            notes.append(f"{one.name} trains another network from scratch: {', '.join(differing)}")
    return notes


def _descriptor(model: dict[str, Any]) -> dict[str, Any]:
    entry = next(iter(branches_of(model).values())).get("descriptor", {})
    return dict(model["shared_dict"][entry] if isinstance(entry, str) else entry)
