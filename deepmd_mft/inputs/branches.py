"""An input as deepmd-kit understands it: defaults filled in, branch by branch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dargs.dargs import ArgumentError
from deepmd.common import j_loader

from deepmd_mft.bridge.inputs import normalise, resolve_shared
from deepmd_mft.checkpoints.branch import head_type, is_property, main_branches, property_columns
from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Branch:
    """One branch of an input: what is trained on which data with which loss.

    Attributes
    ----------
    name : str
        Key in ``model_dict``, or an empty string for a single-task input.
    model, loss, data : dict
        Its parts of the JSON, shared entries filled in.
    """

    name: str
    model: dict[str, Any]
    loss: dict[str, Any]
    data: dict[str, Any]

    @property
    def where(self) -> str:
        """How messages call the branch."""
        return f"branch '{self.name}'" if self.name else "the model"

    @property
    def fitting_net(self) -> dict[str, Any]:
        """The fitting net's part of the JSON."""
        return self.model.get("fitting_net") or {}

    @property
    def head(self) -> str:
        """Type of the fitting net."""
        return head_type(self.model)

    @property
    def loss_type(self) -> str:
        """Type of the loss, deepmd-kit's default included."""
        return str(self.loss.get("type", "ener"))

    @property
    def is_mft_head(self) -> bool:
        """Whether the head is one of this package's."""
        return self.head.startswith("mft_")

    @property
    def is_property(self) -> bool:
        """Whether the branch learns a property, with a head of this package or deepmd-kit's."""
        return is_property(self.model)

    @property
    def labels(self) -> dict[str, int]:
        """Label files that the head learns from, and how many columns each has."""
        return property_columns(self.model)

    @property
    def is_ours(self) -> bool:
        """Whether the branch uses a type of this package."""
        ours = (self.head, self.loss_type, str(self.model.get("type", "")))
        return any(kind == "mft" or kind.startswith("mft_") for kind in ours)

    @property
    def masks(self) -> bool:
        """Whether the loss leaves out labels that are missing."""
        return self.loss.get("missing_labels", "error") == "mask"


def read_input(path: Path) -> dict[str, Any]:
    """Read the JSON (or YAML) of ``dp --pt train``.

    Raises
    ------
    UserError
        If there is no such file, or it is no input.
    """
    if not path.is_file():
        raise UserError(f"{path} {'is no file' if path.exists() else 'does not exist'}")
    try:
        config = j_loader(str(path))
    except Exception as error:  # noqa: BLE001  (each reader has its own kinds)
        first = str(error).splitlines() or [type(error).__name__]
        raise UserError(f"{path} is not JSON or YAML ({first[0]})") from None
    missing = [
        key
        for key in ("model", "training")
        if not isinstance(config, dict) or not isinstance(config.get(key), dict)
    ]
    if missing:
        raise UserError(f"{path} has no {' and no '.join(missing)} section")
    return dict(config)


def read_branches(config: dict[str, Any]) -> list[Branch]:
    """List the branches of an input; a single-task input has one without a name.

    Parameters
    ----------
    config : dict
        The JSON as the user wrote it, or normalised.

    Returns
    -------
    list of Branch

    Raises
    ------
    UserError
        If a branch lacks its loss or data, or a shared entry.
    """
    model, training = config.get("model", {}), config.get("training", {})
    if "model_dict" not in model:
        return [Branch("", model, config.get("loss", {}), training)]
    try:
        model = resolve_shared(model)
    except AssertionError as error:
        raise UserError(f"model: {error}") from None
    branches = []
    for name, branch in model["model_dict"].items():
        for section, parent in (("loss_dict", config), ("data_dict", training)):
            if name not in parent.get(section, {}):
                raise UserError(
                    f"branch '{name}' of model/model_dict has no entry in {section} "
                    f"(there: {', '.join(parent.get(section, {})) or 'nothing'}); add one"
                )
        branches.append(
            Branch(name, branch, config["loss_dict"][name], training["data_dict"][name])
        )
    return branches


def main_ones(branches: list[Branch]) -> list[Branch]:
    """Return the branches that the training may be for: one if it can be told."""
    names = main_branches({branch.name: branch.model for branch in branches})
    return [branch for branch in branches if branch.name in names]


def normalised(config: dict[str, Any]) -> dict[str, Any]:
    """Return an input with every default that deepmd-kit and this package give it.

    Raises
    ------
    UserError
        If it does not fit the schema; with the schema's message, which names the place.
    """
    try:
        return normalise(config)
    except ArgumentError as error:
        raise UserError(f"the input does not fit deepmd-kit's schema: {error}") from None
    except (ValueError, TypeError, KeyError, AttributeError, AssertionError) as error:
        told = str(error) if isinstance(error, (ValueError, AssertionError)) else repr(error)
        raise UserError(f"deepmd-kit cannot read the input: {told}") from None


def flat(params: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Return nested JSON as one dictionary, with keys like ``repflow/n_dim``."""
    found: dict[str, Any] = {}
    for key, value in params.items():
        if isinstance(value, dict):
            found |= flat(value, f"{above}{key}/")
        else:
            found[f"{above}{key}"] = value
    return found
