"""The branches of an input, and whether their parts belong together."""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from dargs.dargs import ArgumentError
from deepmd.pt.utils.multi_task import preprocess_shared_params
from deepmd.utils.argcheck import normalize
from deepmd.utils.compat import update_deepmd_input

from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
log = logging.getLogger(f"deepmd.{__name__}")  # below deepmd's logger, to share its handlers

LOSSES_OF_HEADS = {
    "mft_property": ("mft_property", "property"),
    "mft_spatial_extent": ("mft_property",),
    "mft_dipole_norm": ("mft_property",),
    "mft_classification": ("mft_classification",),
}


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
    def is_mft_head(self) -> bool:
        """Whether the head is one of this package's."""
        return str(self.fitting_net.get("type", "")).startswith("mft_")

    @property
    def is_property(self) -> bool:
        """Whether the branch learns a property, with a head of this package or deepmd-kit's."""
        return self.is_mft_head or self.fitting_net.get("type") == "property"

    @property
    def labels(self) -> dict[str, int]:
        """Label files that the head learns from, and how many columns each has."""
        names = self.fitting_net["property_name"]
        names = names if isinstance(names, list) else [names]
        dims = self.fitting_net.get("task_dim", 1)
        dims = dims if isinstance(dims, list) else [dims] * len(names)
        return dict(zip(names, dims, strict=False))

    @property
    def is_mft_loss(self) -> bool:
        """Whether the loss is one of this package's."""
        return str(self.loss.get("type", "")).startswith("mft_")


class Findings:
    """What is wrong with an input, and what may mislead.

    Parameters
    ----------
    stop : bool
        Raise the first error (before a training), instead of listing all (``dp-mft check``).
    """

    def __init__(self, *, stop: bool) -> None:
        self.stop = stop
        self.errors: list[str] = []
        self.warnings: list[str] = []

    def attempt(self, check: Callable[..., T], *args: Any, **kwargs: Any) -> T | None:
        """Call a check; list its ``UserError``, or raise it."""
        try:
            return check(*args, **kwargs)
        except UserError as error:
            if self.stop:
                raise
            if str(error) not in self.errors:
                self.errors.append(str(error))
            return None

    def warn(self, text: str) -> None:
        """List a warning; before a training, log it."""
        self.warnings.append(text)
        if self.stop:
            log.warning("%s", text)


def read_branches(config: dict[str, Any]) -> list[Branch]:
    """List the branches of an input; a single-task input has one without a name.

    Parameters
    ----------
    config : dict
        The JSON as the user wrote it.

    Returns
    -------
    list of Branch

    Raises
    ------
    UserError
        If a branch lacks its loss or data.
    """
    model, training = config.get("model", {}), config.get("training", {})
    if "model_dict" not in model:
        return [Branch("", model, config.get("loss", {}), training)]
    try:
        model, _ = preprocess_shared_params(copy.deepcopy(model))
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


def flat(params: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Return nested JSON as one dictionary, with keys like ``repflow/n_dim``."""
    found: dict[str, Any] = {}
    for key, value in params.items():
        if isinstance(value, dict):
            found |= flat(value, f"{above}{key}/")
        else:
            found[f"{above}{key}"] = value
    return found


def check_parts(branch: Branch) -> None:
    """Check that model type, head and loss of a branch belong together."""
    model_type = branch.model.get("type", "standard")
    head, loss = branch.fitting_net.get("type", "ener"), branch.loss.get("type", "ener")
    if branch.is_mft_head and model_type != "mft":
        raise UserError(
            f'{branch.where}: fitting_net type "{head}" needs "type": "mft" beside the '
            f'fitting_net (it is "{model_type}")'
        )
    if branch.is_mft_head and loss not in LOSSES_OF_HEADS.get(head, (loss,)):
        raise UserError(
            f'{branch.where}: fitting_net type "{head}" needs a loss of type '
            f'"{LOSSES_OF_HEADS[head][0]}" (it is "{loss}")'
        )
    if branch.is_mft_head and loss.startswith("mft_"):
        _check_same_property(branch)
    if loss == "mft_force_field" and head not in ("ener", "direct_force_ener", "dpa4_ener"):
        raise UserError(
            f'{branch.where}: a loss of type "mft_force_field" belongs to an energy fitting '
            f'net ("ener"), this one is "{head}"'
        )


def check_case_embeddings(branches: list[Branch]) -> None:
    """Check that all branches take a case embedding of one width."""
    dims = {branch.name: branch.fitting_net.get("dim_case_embd", 0) for branch in branches}
    if len(set(dims.values())) > 1:
        listed = ", ".join(f"{name}: {dim}" for name, dim in dims.items())
        raise UserError(
            f"dim_case_embd must be equal in the fitting nets of all branches ({listed}). A "
            "branch taken from a checkpoint fixes it: set the others to the checkpoint's value "
            "(31 for DPA-3.1-3M)"
        )


def check_schema(config: dict[str, Any]) -> None:
    """Check keys, types and values with deepmd-kit's own schema.

    Raises
    ------
    UserError
        With the schema's message, which names the location.
    """
    config = copy.deepcopy(config)
    multi_task = "model_dict" in config["model"]
    if multi_task:
        config["model"], _ = preprocess_shared_params(config["model"])
    try:
        normalize(update_deepmd_input(config, warning=False), multi_task=multi_task)
    except ArgumentError as error:
        raise UserError(f"the input does not fit deepmd-kit's schema: {error}") from None


def _check_same_property(branch: Branch) -> None:
    for key, default in (("property_name", None), ("task_dim", 1), ("num_classes", 2)):
        in_head, in_loss = branch.fitting_net.get(key, default), branch.loss.get(key, default)
        if in_head is not None and in_loss is not None and in_head != in_loss:
            raise UserError(
                f"{branch.where}: {key} is {in_head!r} in the fitting_net and {in_loss!r} in the "
                "loss; make them equal"
            )
