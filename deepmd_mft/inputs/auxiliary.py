"""Auxiliary branches as they are asked for: names, data, and what these have to learn."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from deepmd_mft.errors import UserError
from deepmd_mft.inputs.folders import Contents, look_into
from deepmd_mft.inputs.parts import is_taken
from deepmd_mft.names import RESERVED_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterable


#: How ``NAME:LABEL=DIR`` says that a branch is a force field.
FORCE_FIELD = "energy"


@dataclass
class Auxiliary:
    """An auxiliary branch as asked for.

    Attributes
    ----------
    name : str
        Empty for the template's only one.
    labels : list of str
        What it is to learn; found in the data if left out.
    train, valid : list of Path
        Its data.
    """

    name: str = ""
    labels: list[str] = field(default_factory=list)
    train: list[Path] = field(default_factory=list)
    valid: list[Path] = field(default_factory=list)

    @property
    def where(self) -> str:
        """How messages call it."""
        return f"the auxiliary branch '{self.name}'" if self.name else "the auxiliary branch"

    def contents(self) -> Contents:
        """Look into its data."""
        return look_into([*self.train, *self.valid])


def split_name(text: str) -> tuple[str, str]:
    """Split ``[NAME=]VALUE``; the name is empty if left out.

    A path that holds ``=`` is taken as it is, if it exists.
    """
    name, equals, value = text.partition("=")
    if not equals or "/" in name or Path(text).exists():
        return "", text
    return name, value


def parse_auxiliary(train: Iterable[str], valid: Iterable[str]) -> list[Auxiliary]:
    """Read ``[NAME[:LABEL[,LABEL...]]=]DIR`` of training and validation data.

    Raises
    ------
    UserError
        If a name cannot be that of a branch, or a branch is given two labels.
    """
    found: dict[str, Auxiliary] = {}
    for section, texts in (("train", train), ("valid", valid)):
        for text in texts:
            said, folder = split_name(text)
            name, _, listed = said.partition(":")
            if said:
                _check_name(name, text)
            one = found.setdefault(name, Auxiliary(name))
            labels = [label for label in listed.split(",") if label]
            if labels and one.labels not in ([], labels):
                raise UserError(
                    f"{one.where} is given the labels {', '.join(one.labels)} and, in {text}, "
                    f"{', '.join(labels)}; give each label a branch, or all of them in one: "
                    f"{name}:{','.join(dict.fromkeys([*one.labels, *labels]))}=DIR"
                )
            one.labels = labels or one.labels
            getattr(one, section).append(Path(folder))
    return list(found.values())


def _check_name(name: str, text: str) -> None:
    """Raise unless deepmd-kit and torch can take a name for a branch."""
    taken = is_taken(name)
    if taken or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name):
        raise UserError(
            f"{text}: '{name}' cannot be the name of a branch"
            + (" (it is a name of deepmd-kit or torch)" if taken else "")
            + "; take letters, digits, - and _, as in force_field=DIR or cheap_gap:gap=DIR"
        )


def learns(one: Auxiliary, contents: Contents) -> list[str]:
    """Return the labels that a new branch is to learn; none for a force field.

    Raises
    ------
    UserError
        If its data do not say, or lack what is asked for.
    """
    there = ", ".join(contents.labels) or "none"
    force_field = {"energy", "force"} <= contents.reserved
    if one.labels == [FORCE_FIELD] or (not one.labels and force_field and not contents.labels):
        check_labels(one, [], contents)
        return []
    if one.labels:
        check_labels(one, one.labels, contents)
        return one.labels
    choices = [*([FORCE_FIELD] if force_field else []), *contents.labels]
    if len(choices) > 1:
        kinds = "energies and forces, and " if force_field else ""
        raise UserError(
            f"{one.where}: its data have {kinds}the labels {there}; say what it is to learn: "
            + " or ".join(f"{one.name}:{label}=DIR" for label in choices[:3])
            + (" (energy for a force field)" if force_field else "")
        )
    if not choices:
        energies = "energies but no forces" if "energy" in contents.reserved else "no label"
        raise UserError(
            f"{one.where}: its data have {energies} in every system; a force field needs energy "
            "and force, a property its label"
        )
    return choices


def check_labels(one: Auxiliary, labels: list[str], contents: Contents) -> None:
    """Check that the data have the labels of a branch in every system; none for a force field."""
    if not contents.frames:
        return
    reserved = [label for label in labels if label in RESERVED_NAMES]
    if reserved:
        raise UserError(
            f"{one.where}: '{reserved[0]}' is a name of deepmd-kit's own and cannot be a property; "
            f"rename the label files (for a force field write {one.name}:{FORCE_FIELD}=DIR)"
        )
    wanted = labels or ["energy", "force"]
    missing = [name for name in wanted if name not in {*contents.labels, *contents.reserved}]
    if missing:
        raise UserError(
            f"{one.where} learns {', '.join(labels) or 'a force field'}, but not every system of "
            f"its data has {', '.join(missing)}; the labels there are: "
            f"{', '.join([*contents.labels, *sorted({'energy', 'force'} & contents.reserved)])}"
        )
