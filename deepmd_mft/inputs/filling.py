"""Fill a template from a checkpoint and data folders."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from deepmd.utils.model_branch_dict import get_model_dict

from deepmd_mft.bridge.inputs import own_options
from deepmd_mft.checkpoints.branch import as_list, head_type, is_property
from deepmd_mft.checkpoints.file import read_model_params
from deepmd_mft.errors import UserError
from deepmd_mft.files.checksums import file_checksum
from deepmd_mft.inputs.folders import look_into
from deepmd_mft.structures.elements import atomic_number

if TYPE_CHECKING:
    from pathlib import Path

    from deepmd_mft.inputs.folders import Contents


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
        The label to learn, where the data have several.
    intensive : bool, optional
        Whether the property does not grow with the number of atoms.
    type_map : list of str, optional
        Elements of the model; of the checkpoint and the data by default.
    save_freq : int, optional
        Steps between checkpoints.
    notes : list of str
        What was set because of the data, filled in.
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
    intensive: bool | None = None
    type_map: list[str] = field(default_factory=list)
    save_freq: int | None = None
    notes: list[str] = field(default_factory=list)


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
        If the checkpoint lacks what the template needs, a folder has no data, or the data do not
        say which label is meant.
    """
    config = copy.deepcopy(template)
    base = out.absolute().parent
    if not all(isinstance(config.get(key), dict) for key in ("model", "training")):
        raise UserError("the template has no model or training section")
    data = look_into([*filling.train, *filling.valid])
    auxiliary = look_into([*filling.aux_train, *filling.aux_valid])
    if "model_dict" in config["model"]:
        _fill_branches(config, filling, data, base)
    else:
        _refuse_auxiliary(filling)
        _fill_one(config, filling, data, base)
    _set_type_map(config["model"], filling, {*data.elements, *auxiliary.elements})
    _set_steps(config, filling)
    if filling.checkpoint is not None:
        config["_dp_mft_input"] = {
            "checkpoint": str(filling.checkpoint),
            "checkpoint_sha256": file_checksum(filling.checkpoint),
            "strategy": _strategy(config["model"]),
        }
    return config


def _strategy(model: dict[str, Any]) -> str:
    """Return what a training from a checkpoint is called: MFT, FT, or LP with a frozen backbone."""
    if "model_dict" in model:
        return "mft"
    return "lp" if model["descriptor"].get("trainable", True) is False else "ft"


def _refuse_auxiliary(filling: Filling) -> None:
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


def _fill_one(config: dict[str, Any], filling: Filling, data: Contents, base: Path) -> None:
    model, training = config["model"], config["training"]
    if filling.checkpoint is not None:
        _, source = _source(filling.checkpoint, None)
        model["type_map"] = list(source["type_map"])
        model["descriptor"] = _descriptor(source, model["descriptor"])
    _set_property(model, config.get("loss", {}), filling, data)
    _set_data(training, filling.train, filling.valid, filling.batch_size, base)
    if filling.stat_files is not None:
        training["stat_file"] = f"{filling.stat_files}/model"


def _fill_branches(config: dict[str, Any], filling: Filling, data: Contents, base: Path) -> None:
    name, aux = _names(config["model"]["model_dict"])
    if filling.checkpoint is not None:
        aux = _take_backbone(config, name, aux, filling)
    elif filling.aux_head:
        raise UserError("--aux-head names a branch of a checkpoint; give --checkpoint too")
    branches, parts = config["model"]["model_dict"], config["training"]["data_dict"]
    _set_property(branches[name], config["loss_dict"][name], filling, data)
    _set_data(parts[name], filling.train, filling.valid, filling.batch_size, base)
    _set_data(parts[aux], filling.aux_train, filling.aux_valid, filling.aux_batch_size, base)
    shares = _shares(filling, name, aux)
    if shares is not None:
        config["training"]["model_prob"] = shares
    if filling.stat_files is not None:
        for branch, part in parts.items():
            part["stat_file"] = f"{filling.stat_files}/{branch}"


def _take_backbone(config: dict[str, Any], name: str, aux: str, filling: Filling) -> str:
    """Put the checkpoint's backbone and auxiliary branch in; return that branch's name."""
    assert filling.checkpoint is not None  # noqa: S101
    model = config["model"]
    head, source = _source(filling.checkpoint, filling.aux_head or aux)
    _rename(config, aux, head)
    branches, shared = model["model_dict"], model.get("shared_dict", {})
    for key in ("type_map", "descriptor"):
        entry = branches[name][key]
        old = shared[entry] if isinstance(entry, str) else entry
        value = list(source[key]) if key == "type_map" else _descriptor(source, old)
        if isinstance(entry, str):
            shared[entry] = value
        else:
            for branch in branches.values():
                branch[key] = value
    # what else makes the branch what it is: its type (dpa4), excluded pairs, a given bias
    branches[head] = {
        **{key: branches[head][key] for key in ("type_map", "descriptor")},
        **own_options(source),
        "fitting_net": source["fitting_net"],
        "finetune_head": head,
    }
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
        branch: look_into(folders).frames ** (1 / filling.temperature)
        for branch, folders in ((name, filling.train), (aux, filling.aux_train))
    }
    return {branch: round(weight / sum(weights.values()), 6) for branch, weight in weights.items()}


def _names(branches: dict[str, Any]) -> tuple[str, str]:
    """Return the names of the property and the auxiliary branch."""
    kinds = {name: head_type(branch) for name, branch in branches.items()}
    properties = [name for name, branch in branches.items() if is_property(branch)]
    others = [name for name in kinds if name not in properties]
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


def _set_property(
    model: dict[str, Any], loss: dict[str, Any], filling: Filling, data: Contents
) -> None:
    """Let the head learn the label that the data have."""
    net = model["fitting_net"]
    names = _choose_labels(as_list(net.get("property_name")), filling, data)
    found: dict[str, Any] = {"property_name": names}
    if head_type(model) == "mft_classification":
        known = [data.largest[name] for name in names if name in data.labels]
        if known and max(known) >= net.get("num_classes", 2):
            found["num_classes"] = int(max(known)) + 1
    elif all(name in data.labels for name in names):
        found["task_dim"] = [data.labels[name] for name in names]
    for key, value in found.items():
        one = value[0] if isinstance(value, list) and len(set(map(str, value))) == 1 else value
        one = value if key == "property_name" and len(names) > 1 else one
        if as_list(net.get(key, 1 if key == "task_dim" else None)) in (as_list(one), value):
            continue
        filling.notes.append(f"{key} is {one} (the template has {net.get(key)}): so are the data")
        net[key] = one
        if key in loss:
            loss[key] = one
    if filling.intensive is not None:
        net["intensive"] = filling.intensive
        if net.get("readout") == "sum" or not filling.intensive:
            net.pop("readout", None)  # it follows intensive


def _choose_labels(names: list[str], filling: Filling, data: Contents) -> list[str]:
    """Return the labels to learn: as asked for, the template's, or the only one of the data."""
    asked = names if filling.property_name is None else [filling.property_name]
    if not data.frames or (asked and all(name in data.labels for name in asked)):
        return asked
    there = ", ".join(data.labels) or "none"
    if filling.property_name is not None or len(data.labels) != 1:
        raise UserError(
            f"the template learns {', '.join(asked) or 'nothing'}, which not every system of the "
            f"property's data has as a label; the labels there are: {there}. Choose one with "
            "--property"
        )
    return list(data.labels)


def _set_type_map(model: dict[str, Any], filling: Filling, elements: set[str]) -> None:
    """Let the model know the elements of the data."""
    branches = model.get("model_dict", {"": model})
    shared = model.get("shared_dict", {})
    entry = next(iter(branches.values()))["type_map"]
    old = shared[entry] if isinstance(entry, str) else entry
    new = sorted(elements - set(old), key=_place)
    if filling.type_map:
        type_map = filling.type_map
    elif not new:
        return
    elif filling.checkpoint is not None:
        type_map = [*old, *new]  # the types of the checkpoint keep their numbers
    else:
        type_map = sorted(elements, key=_place)
    missing = sorted(elements - set(type_map), key=_place)
    if missing:
        raise UserError(
            f"--type-map lacks {', '.join(missing)}, which the data list; add them, or leave it out"
        )
    if new or filling.type_map:
        filling.notes.append(f"type_map is {' '.join(type_map)}")
    if isinstance(entry, str):
        shared[entry] = type_map
    else:
        for branch in branches.values():
            branch["type_map"] = list(type_map)


def _place(name: str) -> tuple[int, str]:
    try:
        return atomic_number(name), name
    except UserError:
        return 999, name  # a type that is no element comes last


def _set_steps(config: dict[str, Any], filling: Filling) -> None:
    """Set the steps; what is counted in steps must go with them."""
    training = config["training"]
    if filling.save_freq is not None:
        training["save_freq"] = filling.save_freq
    if filling.steps is None:
        return
    training["numb_steps"] = filling.steps
    if filling.save_freq is None and training.get("save_freq", 1000) >= filling.steps:
        training["save_freq"] = max(1, filling.steps // 5)  # several to select from
        filling.notes.append(f"save_freq is {training['save_freq']}: {filling.steps} steps")
    if training.get("disp_freq", 1000) > training.get("save_freq", 1000):
        training["disp_freq"] = training["save_freq"]
        filling.notes.append(f"disp_freq is {training['disp_freq']}, as save_freq")
    rates = config.get("learning_rate", {})
    if rates.get("warmup_steps", 0) >= filling.steps:
        rates["warmup_steps"] = filling.steps // 10
        filling.notes.append(f"warmup_steps is {rates['warmup_steps']}: {filling.steps} steps")


def _set_data(
    part: dict[str, Any],
    train: list[Path],
    valid: list[Path],
    batch_size: int | str | None,
    base: Path,
) -> None:
    for section, folders in (("training_data", train), ("validation_data", valid)):
        if folders:
            names = [os.path.relpath(folder.absolute(), base) for folder in folders]
            part.setdefault(section, {})["systems"] = names[0] if len(names) == 1 else names
    if batch_size is not None:
        part["training_data"]["batch_size"] = batch_size
