"""Fill a template from a checkpoint and data folders."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from deepmd_mft.checkpoints.branch import (
    MAIN,
    as_list,
    head_type,
    is_property,
    main_branches,
    mft_strategy,
)
from deepmd_mft.errors import UserError
from deepmd_mft.files.checksums import file_checksum
from deepmd_mft.inputs.auxiliary_branches import Template, build_auxiliary
from deepmd_mft.inputs.folders import look_into
from deepmd_mft.inputs.pretrained import Pretrained
from deepmd_mft.inputs.shares import choose_shares
from deepmd_mft.structures.elements import atomic_number

if TYPE_CHECKING:
    from pathlib import Path

    from deepmd_mft.inputs.auxiliary import Auxiliary
    from deepmd_mft.inputs.auxiliary_branches import Built
    from deepmd_mft.inputs.folders import Contents


@dataclass
class Filling:
    """What goes into a template; what is None stays as it is.

    Attributes
    ----------
    train, valid : list of Path
        Data folders of the property.
    auxiliary : list of Auxiliary
        The branches beside it, with their data.
    checkpoint : Path, optional
        Gives descriptor, type map, ``dim_case_embd`` and the heads that it has.
    aux_heads : dict of str
        Which of its heads an auxiliary branch starts from; an empty name stands for the only one.
    steps : int, optional
        Training steps, of all branches together.
    batch_size : int or str, optional
        As in deepmd-kit's input.
    aux_batch_sizes : dict of int or str
        The same by auxiliary branch; an empty name stands for all that are not named.
    shares : dict of float
        ``model_prob`` by branch; an empty name stands for the property's.
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
    auxiliary: list[Auxiliary] = field(default_factory=list)
    checkpoint: Path | None = None
    aux_heads: dict[str, str] = field(default_factory=dict)
    steps: int | None = None
    batch_size: int | str | None = None
    aux_batch_sizes: dict[str, int | str] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
    temperature: float | None = None
    stat_files: str | None = None
    property_name: str | None = None
    intensive: bool | None = None
    type_map: list[str] = field(default_factory=list)
    save_freq: int | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def auxiliary_data(self) -> list[Path]:
        """Data folders of the branches beside the property's."""
        return [path for one in self.auxiliary for path in [*one.train, *one.valid]]


def fill(template: dict[str, Any], filling: Filling, out: Path) -> dict[str, Any]:
    """Return the filled input.

    Parameters
    ----------
    template : dict
        A deepmd-kit input, for instance a template.
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
    pretrained = None if filling.checkpoint is None else Pretrained.read(filling.checkpoint)
    elements = set(data.elements)
    if "model_dict" in config["model"]:
        elements |= _fill_branches(config, filling, data, pretrained, base)
    else:
        _refuse_auxiliary(filling)
        _fill_one(config, filling, data, pretrained, base)
    _set_type_map(config["model"], filling, elements)
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
        branches = model["model_dict"]
        main = _main(branches)
        return mft_strategy(branch for name, branch in branches.items() if name != main)
    return "lp" if model["descriptor"].get("trainable", True) is False else "ft"


def _refuse_auxiliary(filling: Filling) -> None:
    for given in (
        ", ".join(map(str, filling.auxiliary_data)),
        ", ".join(filling.aux_heads.values()),
        ", ".join(map(str, filling.aux_batch_sizes.values())),
        ", ".join(map(str, filling.shares.values())),
        filling.temperature,
    ):
        if given:
            raise UserError(
                f"the template has no auxiliary branch (model_dict) for {given}; take an MFT "
                "template, or leave out its data, head, batch size and share"
            )


def _fill_one(
    config: dict[str, Any],
    filling: Filling,
    data: Contents,
    pretrained: Pretrained | None,
    base: Path,
) -> None:
    model, training = config["model"], config["training"]
    if pretrained is not None:
        model["type_map"] = list(pretrained.first["type_map"])
        model["descriptor"] = _descriptor(pretrained.first, model["descriptor"])
    _set_property(model, config.get("loss", {}), filling, data)
    _set_data(training, filling.train, filling.valid, filling.batch_size, base)
    if filling.stat_files is not None:
        training["stat_file"] = f"{filling.stat_files}/model"


def _fill_branches(
    config: dict[str, Any],
    filling: Filling,
    data: Contents,
    pretrained: Pretrained | None,
    base: Path,
) -> set[str]:
    """Fill an input of several branches; return the elements of the auxiliary data."""
    main = _main(config["model"]["model_dict"])
    if filling.aux_heads and pretrained is None:
        raise UserError("--aux-head names a branch of a checkpoint; give --checkpoint too")
    template = Template(copy.deepcopy(config), main)
    built, contents = build_auxiliary(
        template, filling.auxiliary, filling.aux_heads, pretrained, filling.notes
    )
    _put_in(config, main, built)
    branches, parts = config["model"]["model_dict"], config["training"]["data_dict"]
    if pretrained is not None:
        new = [main, *(one.name for one in built if not one.head)]
        _take_backbone(config["model"], main, new, pretrained)
    _set_property(branches[main], config["loss_dict"][main], filling, data)
    if sum(map(is_property, branches.values())) > 1:
        branches[main]["info"] = {**branches[main].get("info", {}), MAIN: True}
    _set_data(parts[main], filling.train, filling.valid, filling.batch_size, base)
    sizes = _by_branch(filling.aux_batch_sizes, built, "--aux-batch-size")
    for one in built:
        size = sizes.get(one.name, sizes.get(""))
        _set_data(parts[one.name], one.asked.train, one.asked.valid, size, base)
        if one.asked.train and not one.asked.valid:
            parts[one.name].pop("validation_data", None)
    frames = {one.name: one.asked.train for one in built} | {main: filling.train}
    shares = choose_shares(
        config["training"].get("model_prob"), main, frames, filling.shares, filling.temperature
    )
    if shares is not None:
        config["training"]["model_prob"] = shares
    if filling.stat_files is not None:
        for branch, part in parts.items():
            part["stat_file"] = f"{filling.stat_files}/{branch}"
    _tell_branches(config, main, template, built, filling.notes)
    return {element for one in contents for element in one.elements}


def _main(branches: dict[str, Any]) -> str:
    """Return the name of the property branch that the training is for."""
    found = main_branches(branches)
    if len(found) != 1:
        kinds = {name: head_type(branch) for name, branch in branches.items()}
        raise UserError(
            f"the template has branches {kinds}; needed is one property branch, or one of several "
            f'with "info": {{"{MAIN}": true}}'
        )
    return found[0]


def _put_in(config: dict[str, Any], main: str, built: list[Built]) -> None:
    """Replace the auxiliary branches of a template, in all sections."""
    model, training = config["model"], config["training"]
    entry = {key: model["model_dict"][main][key] for key in ("type_map", "descriptor")}
    for parent, key, parts in (
        (model, "model_dict", {one.name: {**copy.deepcopy(entry), **one.model} for one in built}),
        (config, "loss_dict", {one.name: one.loss for one in built}),
        (training, "data_dict", {one.name: one.data for one in built}),
    ):
        old = parent[key]
        last = list(old)[-1] == main  # where the template has it
        parent[key] = {**parts, main: old[main]} if last else {main: old[main], **parts}


def _take_backbone(
    model: dict[str, Any], main: str, new: list[str], pretrained: Pretrained
) -> None:
    """Put the checkpoint's type map and descriptor in, and the width of case embeddings of heads.

    ``new`` are the branches that have a head of their own; others have the checkpoint's.
    """
    branches, shared = model["model_dict"], model.get("shared_dict", {})
    source = pretrained.first
    for key in ("type_map", "descriptor"):
        entry = branches[main][key]
        old = shared[entry] if isinstance(entry, str) else entry
        value = list(source[key]) if key == "type_map" else _descriptor(source, old)
        if isinstance(entry, str):
            shared[entry] = value
        else:
            for branch in branches.values():
                branch[key] = value
    dim = source["fitting_net"].get("dim_case_embd", 0)
    for name in new:
        branches[name]["fitting_net"].pop("dim_case_embd", None)
        if dim:
            branches[name]["fitting_net"]["dim_case_embd"] = dim


def _tell_branches(
    config: dict[str, Any], main: str, template: Template, built: list[Built], notes: list[str]
) -> None:
    """Say what the auxiliary branches learn, from which head, and what is not the data's to say."""
    if all(one.name in template.others and not one.asked.name for one in built):
        return
    shares = config["training"].get("model_prob") or {}
    for one in built:
        start = f"head '{one.head}' of the checkpoint" if one.head else "a new head"
        text = f"branch {one.name} learns {one.kind}, from {start}"
        net = one.model["fitting_net"]
        if net.get("type") == "mft_property" and not one.head:
            text += f", intensive: {str(net.get('intensive', False)).lower()} (the template's)"
        notes.append(text + (f", share {shares[one.name]:g}" if one.name in shares else ""))
    if main in shares:
        notes.append(f"branch {main} is the one that the training is for, share {shares[main]:g}")
    gone = [n for n in template.others if n not in {one.origin for one in built}]
    if gone:
        notes.append(f"branch {', '.join(gone)} of the template is left out: it is given no data")


def _by_branch(given: dict[str, Any], built: list[Built], option: str) -> dict[str, Any]:
    """Return values by auxiliary branch after checking that they are there."""
    names = [one.name for one in built]
    for name in given:
        if name and name not in names:
            raise UserError(f"{option}: there is no auxiliary branch '{name}' ({', '.join(names)})")
    return given


def _descriptor(source: dict[str, Any], template: dict[str, Any]) -> dict[str, Any]:
    """Return the checkpoint's descriptor, trained or frozen as the template says."""
    found = {k: v for k, v in source["descriptor"].items() if k != "trainable"}
    return found | {k: v for k, v in template.items() if k == "trainable"}


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
