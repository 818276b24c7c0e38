"""Fill a template from a checkpoint and data folders."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deepmd.utils.model_branch_dict import get_model_dict

from deepmd_mft.checkpoints.file import read_model_params
from deepmd_mft.errors import UserError
from deepmd_mft.files.checksums import file_checksum
from deepmd_mft.structures.dataset import open_dataset

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class Filling:
    """What goes into a template; what is None stays as it is.

    Attributes
    ----------
    train, valid, aux_train, aux_valid : list of Path
        Data folders of the property and of the auxiliary branch.
    checkpoint : Path, optional
        Gives descriptor, type map, ``dim_case_embd`` and the auxiliary head.
    aux_head : str, optional
        Which of its force-field branches to keep.
    steps : int, optional
        Training steps, of all branches together.
    batch_size, aux_batch_size : int or str, optional
        As in deepmd-kit's input.
    share : float, optional
        ``model_prob`` of the property branch.
    temperature : float, optional
        ``model_prob`` by the numbers of training structures instead, n^(1/T) (JMP, T = 2).
    stat_files : str, optional
        Folder for deepmd-kit's statistics, a part of it for each branch.
    property_name : str, optional
        Another property than the template's.
    """

    train: list[Path]
    valid: list[Path]
    aux_train: list[Path]
    aux_valid: list[Path]
    checkpoint: Path | None = None
    aux_head: str | None = None
    steps: int | None = None
    batch_size: int | str | None = None
    aux_batch_size: int | str | None = None
    share: float | None = None
    temperature: float | None = None
    stat_files: str | None = None
    property_name: str | None = None


def fill(template: dict[str, Any], filling: Filling, out: Path) -> dict[str, Any]:
    """Return the filled input.

    Parameters
    ----------
    template : dict
        A deepmd-kit input, for instance from ``input_templates/``.
    filling : Filling
    out : Path
        Where it will lie; data paths are written relative to its folder.

    Raises
    ------
    UserError
        If the checkpoint lacks what the template needs, or a folder has no data.
    """
    config = copy.deepcopy(template)
    base = out.absolute().parent
    try:
        several = "model_dict" in config["model"]
        training = config["training"]
    except (KeyError, TypeError):
        raise UserError("the template has no model or training section") from None
    if several:
        _fill_branches(config, filling, base)
    else:
        for given in (
            ", ".join(map(str, [*filling.aux_train, *filling.aux_valid])),
            filling.aux_head,
            filling.aux_batch_size,
            filling.share,
            filling.temperature,
        ):
            if given:
                raise UserError(
                    f"the template has no auxiliary branch (model_dict) for {given}; take an MFT "
                    "template, or leave out its data, head, batch size and share"
                )
        if filling.checkpoint is not None:
            _, source = _source(filling.checkpoint, None)
            model = config["model"]
            model["type_map"] = source["type_map"]
            model["descriptor"] = _descriptor(source, model["descriptor"])
        _set_property(config["model"]["fitting_net"], config["loss"], filling.property_name)
        _set_data(training, filling.train, filling.valid, filling.batch_size, base)
        if filling.stat_files is not None:
            training["stat_file"] = f"{filling.stat_files}/model"
    if filling.steps is not None:
        training["numb_steps"] = filling.steps
    if filling.checkpoint is not None:
        config["_dp_mft_input"] = {
            "checkpoint": str(filling.checkpoint),
            "checkpoint_sha256": file_checksum(filling.checkpoint),
        }
    return config


def _fill_branches(config: dict[str, Any], filling: Filling, base: Path) -> None:
    name, aux = _names(config["model"]["model_dict"])
    if filling.checkpoint is not None:
        aux = _take_backbone(config, name, aux, filling)
    elif filling.aux_head:
        raise UserError("--aux-head names a branch of a checkpoint; give --checkpoint too")
    branches, data = config["model"]["model_dict"], config["training"]["data_dict"]
    _set_property(branches[name]["fitting_net"], config["loss_dict"][name], filling.property_name)
    _set_data(data[name], filling.train, filling.valid, filling.batch_size, base)
    _set_data(data[aux], filling.aux_train, filling.aux_valid, filling.aux_batch_size, base)
    shares = _shares(filling, name, aux)
    if shares is not None:
        config["training"]["model_prob"] = shares
    if filling.stat_files is not None:
        for branch, part in data.items():
            part["stat_file"] = f"{filling.stat_files}/{branch}"


def _take_backbone(config: dict[str, Any], name: str, aux: str, filling: Filling) -> str:
    """Put the checkpoint's backbone and auxiliary head in; return that head's name."""
    assert filling.checkpoint is not None  # noqa: S101
    model = config["model"]
    head, source = _source(filling.checkpoint, filling.aux_head or aux)
    _rename(config, aux, head)
    branches, shared = model["model_dict"], model.get("shared_dict", {})
    for key in ("type_map", "descriptor"):
        entry = branches[name][key]
        old = shared[entry] if isinstance(entry, str) else entry
        value = source[key] if key == "type_map" else _descriptor(source, old)
        if isinstance(entry, str):
            shared[entry] = value
        else:
            for branch in branches.values():
                branch[key] = value
    branches[head]["fitting_net"] = source["fitting_net"]
    branches[head]["finetune_head"] = head
    dim = source["fitting_net"].get("dim_case_embd", 0)
    branches[name]["fitting_net"].pop("dim_case_embd", None)
    if dim:
        branches[name]["fitting_net"]["dim_case_embd"] = dim
    return head


def _shares(filling: Filling, name: str, aux: str) -> dict[str, float] | None:
    """Return ``model_prob``, by temperature or as given."""
    if filling.temperature is None:
        if filling.share is None:
            return None
        return {name: filling.share, aux: round(1 - filling.share, 12)}
    if not filling.train or not filling.aux_train:
        raise UserError("--temperature counts structures: give --train and --aux-train")
    weights = {
        branch: sum(len(open_dataset(folder)) for folder in folders) ** (1 / filling.temperature)
        for branch, folders in ((name, filling.train), (aux, filling.aux_train))
    }
    return {branch: round(weight / sum(weights.values()), 6) for branch, weight in weights.items()}


def _names(branches: dict[str, Any]) -> tuple[str, str]:
    """Return the names of the property and the auxiliary branch."""
    kinds = {name: str(b["fitting_net"].get("type", "ener")) for name, b in branches.items()}
    properties = [n for n, kind in kinds.items() if kind.startswith("mft_") or kind == "property"]
    others = [n for n in kinds if n not in properties]
    if len(properties) != 1 or len(others) != 1:
        raise UserError(
            f"the template has branches {kinds}; needed are one property and one force-field branch"
        )
    return properties[0], others[0]


def _source(checkpoint: Path, head: str | None) -> tuple[str, dict[str, Any]]:
    """Return the branch of the checkpoint to start from; any if the head does not matter."""
    params = read_model_params(checkpoint)
    if "model_dict" not in params:
        return "Default", params
    branches = params["model_dict"]
    if head is None:
        return next(iter(branches.items()))
    aliases = get_model_dict(branches)[0]
    if head not in aliases and len(branches) == 1:
        return next(iter(branches.items()))
    if head not in aliases:
        raise UserError(
            f"{checkpoint} has no head '{head}'; it has {', '.join(branches)}. Choose with "
            "--aux-head: MFT wants the force field whose data resemble the target (SPICE2 for "
            "molecules, OMat24 for crystals)"
        )
    return str(aliases[head]), branches[aliases[head]]


def _descriptor(source: dict[str, Any], template: dict[str, Any]) -> dict[str, Any]:
    """Return the checkpoint's descriptor, trained or frozen as the template says."""
    found = {k: v for k, v in source["descriptor"].items() if k != "trainable"}
    return found | {k: v for k, v in template.items() if k == "trainable"}


def _rename(config: dict[str, Any], old: str, new: str) -> None:
    sections = (
        (config["model"], "model_dict"),
        (config, "loss_dict"),
        (config["training"], "data_dict"),
        (config["training"], "model_prob"),
    )
    for parent, key in sections:
        if key in parent:
            parent[key] = {new if k == old else k: v for k, v in parent[key].items()}


def _set_property(fitting_net: dict[str, Any], loss: dict[str, Any], name: str | None) -> None:
    if name is not None:
        fitting_net["property_name"] = loss["property_name"] = name


def _set_data(
    part: dict[str, Any],
    train: list[Path],
    valid: list[Path],
    batch_size: int | str | None,
    base: Path,
) -> None:
    for section, folders in (("training_data", train), ("validation_data", valid)):
        if folders:
            for folder in folders:
                open_dataset(folder)
            names = [os.path.relpath(folder.absolute(), base) for folder in folders]
            part.setdefault(section, {})["systems"] = names[0] if len(names) == 1 else names
    if batch_size is not None:
        part["training_data"]["batch_size"] = batch_size
