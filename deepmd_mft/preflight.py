"""Checks that run before ``dp --pt train`` starts, on inputs that use this package.

deepmd-kit reads label files when a batch first needs them, so a broken file can stop a run after
hours, and a missing force label of the auxiliary branch is skipped without a word. Everything that
can be known from the files is looked at here, before the first step and before anything is
written. An input without a type of this package is left alone.
"""

from __future__ import annotations

import copy
import logging
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from dargs.dargs import ArgumentError
from deepmd.common import j_loader
from deepmd.dpmodel.utils.lmdb_data import is_lmdb
from deepmd.pt.utils.multi_task import preprocess_shared_params
from deepmd.utils.argcheck import normalize
from deepmd.utils.compat import update_deepmd_input
from deepmd.utils.data_system import process_systems
from deepmd.utils.model_branch_dict import get_model_dict
from deepmd.utils.path import DPPath

from deepmd_mft.compat import check_before_commands, read_frames_without_threads
from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

T = TypeVar("T")
log = logging.getLogger(f"deepmd.{__name__}")  # below deepmd's logger, to share its handlers

LOSSES_OF_HEADS = {
    "mft_property": ("mft_property", "property"),
    "mft_spatial_extent": ("mft_property",),
    "mft_dipole_norm": ("mft_property",),
    "mft_classification": ("mft_classification",),
}
HEADS_OF_MOLECULES = ("mft_spatial_extent", "mft_dipole_norm")


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


def check_command(args: argparse.Namespace) -> None:
    """Check the input of ``dp --pt train``; other commands pass.

    Parameters
    ----------
    args : argparse.Namespace
        The parsed command line of ``dp``.

    Raises
    ------
    UserError
        With the file, key, branch or element, and what to do.
    """
    if getattr(args, "command", None) != "train":
        return
    config = j_loader(args.INPUT)
    branches = read_branches(config)
    if not any(b.is_mft_head or b.is_mft_loss or b.model.get("type") == "mft" for b in branches):
        return
    options = ("finetune", "init_model", "restart")
    given = {option: Path(path) for option in options if (path := getattr(args, option, None))}
    # with --use-pretrain-script the checkpoint fills in the model
    schema = None if getattr(args, "use_pretrain_script", False) else config
    check_all(schema, branches, given, Findings(stop=True))
    read_frames_without_threads()
    if args.skip_neighbor_stat:
        log.warning(
            "--skip-neighbor-stat: the bias and scale of a new property head come from "
            "model/data_stat_nbatch (default 10) batches of each system, not from the whole "
            "training set; set data_stat_nbatch of the branch to a large number to see all of it"
        )


def check_all(
    config: dict[str, Any] | None,
    branches: list[Branch],
    checkpoints: dict[str, Path],
    findings: Findings,
) -> None:
    """Check schema, branches, checkpoints and data.

    Parameters
    ----------
    config : dict or None
        The whole input, to be held against the schema; None to leave that out.
    branches : list of Branch
    checkpoints : dict of str to Path
        By the option of ``dp train``: ``finetune``, ``init_model``, ``restart``.
    findings : Findings
        Filled.
    """
    for branch in branches:
        findings.attempt(_check_parts, branch)
    findings.attempt(_check_case_embeddings, branches)
    if config is not None:
        findings.attempt(check_schema, config)
    for option, path in checkpoints.items():
        check_checkpoint(path, branches, findings, finetune=option == "finetune")
    for branch in branches:
        check_data(branch, findings)


# --- the input --------------------------------------------------------------------------------


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


def _check_parts(branch: Branch) -> None:
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


def _check_case_embeddings(branches: list[Branch]) -> None:
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


# --- the checkpoint ---------------------------------------------------------------------------


def check_checkpoint(
    path: Path, branches: list[Branch], findings: Findings, *, finetune: bool
) -> None:
    """Check that a checkpoint can be read and has the heads that the input asks for.

    Parameters
    ----------
    path : Path
        As given on the command line; deepmd-kit adds ``.pt`` for ``--restart`` and
        ``--init-model``.
    branches : list of Branch
        The branches of the input.
    findings : Findings
        Filled.
    finetune : bool
        Whether heads are chosen by ``finetune_head``.
    """
    if not path.is_file() and not finetune:
        path = path.with_name(path.name + ".pt")
    model_params = findings.attempt(read_model_params, path)
    if model_params is None or not finetune:
        return
    for branch in branches:
        findings.attempt(_check_head, branch, model_params, path)


def _check_head(branch: Branch, model_params: dict[str, Any], path: Path) -> None:
    """Check that the checkpoint has the head that a branch starts from, and that it fits."""
    pretrained = model_params.get("model_dict", {"Default": model_params})
    names = get_model_dict(pretrained)[0] if "model_dict" in model_params else {"Default": ""}
    head = branch.model.get("finetune_head", branch.name if branch.name in names else "RANDOM")
    if head == "RANDOM":
        return
    if head not in names:
        raise UserError(
            f"{branch.where}: finetune_head '{head}' is not in {path}; it has "
            f"{', '.join(pretrained)}. Choose one of them, or RANDOM for a new head"
        )
    source = pretrained.get(names[head] or head, pretrained.get(head, {}))
    _check_same_case_embedding(branch, head, source, path)


def _check_same_case_embedding(
    branch: Branch, head: str, source: dict[str, Any], path: Path
) -> None:
    dim = branch.fitting_net.get("dim_case_embd", 0)
    dim_source = source.get("fitting_net", {}).get("dim_case_embd", 0)
    if dim != dim_source:
        raise UserError(
            f"{branch.where}: dim_case_embd is {dim}, but {dim_source} in head '{head}' of {path}; "
            f"set it to {dim_source} in the fitting nets of all branches"
        )


def read_model_params(path: Path) -> dict[str, Any]:
    """Return the model JSON that a checkpoint was trained with.

    Parameters
    ----------
    path : Path
        A ``.pt`` checkpoint of ``dp --pt train``.

    Returns
    -------
    dict

    Raises
    ------
    UserError
        If there is no such file, or it is truncated or something else than a checkpoint.
    """
    if not path.is_file():
        raise UserError(f"checkpoint {path} does not exist")
    if not zipfile.is_zipfile(path):
        raise UserError(
            f"{path} is not a complete checkpoint ({path.stat().st_size} bytes, no zip archive as "
            "torch.save writes it): it was cut off while copying or downloading, or is another "
            "kind of file; fetch it again"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        state = state.get("model", state)
        return dict(state["_extra_state"]["model_params"])
    except Exception as error:  # noqa: BLE001  (torch raises many kinds on a foreign file)
        raise UserError(
            f"{path} is not a checkpoint of `dp --pt train` ({type(error).__name__}); frozen .pth "
            "models and checkpoints of other programs cannot be fine-tuned"
        ) from None


# --- the data ---------------------------------------------------------------------------------


def check_data(branch: Branch, findings: Findings) -> None:
    """Check elements and labels of a branch's training and validation systems.

    Systems in LMDB are checked by deepmd-kit as it reads them.
    """
    for section in ("training_data", "validation_data"):
        part = branch.data.get(section)
        if not part or "systems" not in part:
            continue
        systems = findings.attempt(list_systems, part, branch, section) or []
        for system in systems:
            findings.attempt(_check_elements, system, branch.model.get("type_map", []), branch)
        sets = [
            folder for system in systems for folder in findings.attempt(list_sets, system) or []
        ]
        if branch.is_property:
            _check_property_data(branch, systems, sets, section, findings)
        elif branch.loss.get("type") == "mft_force_field":
            for label in _weighted_labels(branch.loss):
                for folder in sets:
                    findings.attempt(read_label, folder, label, None, branch)


def _check_property_data(
    branch: Branch, systems: list[str], sets: list[DPPath], section: str, findings: Findings
) -> None:
    """Check the labels of a property branch; report what is masked."""
    if branch.fitting_net["type"] in HEADS_OF_MOLECULES:
        for system in systems:
            findings.attempt(_check_molecule, system, branch)
    mask = branch.loss.get("missing_labels", "error") == "mask"
    for name, dim in branch.labels.items():
        known, total = 0, 0
        for folder in sets:
            values = findings.attempt(_read_property, folder, name, dim, branch, mask=mask)
            if values is not None:
                known += int(np.isfinite(values).sum())
                total += values.size
        if total and not known:
            findings.attempt(_no_label, branch, name, section)
        elif known < total:
            findings.warn(
                f"{branch.where}, {section}: {total - known} of {total} labels of property {name} "
                "are missing and masked"
            )


def _check_molecule(system: str, branch: Branch) -> None:
    if not (DPPath(system) / "nopbc").is_file():
        raise UserError(
            f"{branch.where}: {system} has a periodic cell, but {branch.fitting_net['type']} is "
            "defined for molecules (its value would depend on the origin). If these are "
            "molecules, add an empty file `nopbc` to the system; else use fitting_net mft_property"
        )


def _read_property(
    folder: DPPath, name: str, dim: int, branch: Branch, *, mask: bool
) -> np.ndarray:
    values = read_label(folder, name, dim, branch, mask=mask)
    if branch.fitting_net["type"] == "mft_classification":
        _check_classes(values, branch, folder / f"{name}.npy")
    return values


def _no_label(branch: Branch, name: str, section: str) -> None:
    raise UserError(
        f"{branch.where}: property '{name}' has no label at all in {section}; check property_name "
        "and the label files"
    )


def _check_classes(values: np.ndarray, branch: Branch, path: DPPath) -> None:
    num_classes = branch.fitting_net.get("num_classes", 2)
    known = values[np.isfinite(values)]
    bad = known[(known != np.round(known)) | (known < 0) | (known >= num_classes)]
    if len(bad):
        raise UserError(
            f"{branch.where}: {path} has the label {bad[0]:g}; with num_classes {num_classes} the "
            f"labels must be whole numbers from 0 to {num_classes - 1}"
        )


def list_systems(part: dict[str, Any], branch: Branch, section: str) -> list[str]:
    """Expand ``systems`` as deepmd-kit does; empty for LMDB."""
    systems = part["systems"]
    if isinstance(systems, str) and Path(systems).exists() and is_lmdb(systems):
        return []
    try:
        found = process_systems(systems, patterns=part.get("rglob_patterns"))
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{branch.where}, {section}/systems: {error}") from None
    if not found:
        raise UserError(
            f"{branch.where}: no system found in {section}/systems = {systems!r} (a system is a "
            f"folder with type.raw); paths are relative to {Path.cwd()}"
        )
    return found


def list_sets(system: str) -> list[DPPath]:
    """Return the set.* folders of a system.

    Raises
    ------
    UserError
        If it has none.
    """
    sets = sorted(DPPath(system).glob("set.*"), key=str)
    if not sets:
        raise UserError(f"{system} has no set.* folder, so no frames; remove it from the input")
    return sets


def _weighted_labels(loss: dict[str, Any]) -> list[str]:
    """Return the labels that the prefactors of an energy loss weigh."""
    return [
        label
        for label, key in (("energy", "e"), ("force", "f"))
        if loss.get(f"start_pref_{key}", 0) and loss.get(f"limit_pref_{key}", 0)
    ]


def read_label(
    folder: DPPath, label: str, columns: int | None, branch: Branch, *, mask: bool = False
) -> np.ndarray:
    """Read one label file and check its shape and values.

    Parameters
    ----------
    folder : DPPath
        A set; its ``coord.npy`` tells the number of frames.
    label : str
        Name of the label.
    columns : int, optional
        Columns that it must have; any number if None.
    branch : Branch
        For messages.
    mask : bool
        Whether labels may be missing: no file, or NaN.

    Returns
    -------
    np.ndarray
        nframes x columns, NaN where missing.

    Raises
    ------
    UserError
        If the file is missing, cannot be read, has another shape, or has NaN or inf.
    """
    path = folder / f"{label}.npy"
    try:
        nframes = len((folder / "coord.npy").load_numpy())
        if mask and not path.is_file():
            return np.full((nframes, columns or 1), np.nan)
        if not path.is_file():
            there = sorted(Path(str(p)).stem for p in folder.glob("*.npy"))
            raise UserError(
                f"{branch.where}: {path} does not exist, but the loss needs {label} (the set has "
                f"{', '.join(there)}). Write it, or remove the system from the input"
                + (", or set missing_labels: mask in the loss" if branch.is_mft_head else "")
            )
        values = np.asarray(path.load_numpy(), dtype=np.float64)
    except (OSError, EOFError) as error:
        raise UserError(f"{path} cannot be read ({error}); write it again") from None
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} cannot be read ({error}); write it again") from None
    values = values.reshape(len(values), -1) if values.ndim else values.reshape(1, 1)
    if len(values) != nframes:
        raise UserError(
            f"{path} has {len(values)} rows, but the set has {nframes} frames (coord.npy); one row "
            "a frame is needed"
        )
    if columns is not None and values.shape[1] != columns:
        raise UserError(
            f"{path} has {values.shape[1]} column(s), but the head expects {columns}; make "
            "task_dim of fitting_net and loss equal to the columns of the file"
        )
    bad = np.isinf(values) if mask else ~np.isfinite(values)
    rows = np.flatnonzero(bad.any(axis=1))
    if len(rows):
        listed = ", ".join(map(str, rows[:10])) + (", ..." if len(rows) > 10 else "")
        raise UserError(
            f"{path} has {'inf' if mask else 'NaN or inf'} in {len(rows)} of {nframes} rows (row "
            f"{listed}, counted from 0); remove these frames or mend their labels"
            + ("" if mask else ", or set missing_labels: mask in the loss to leave NaN out")
        )
    return values


def _check_elements(system: str, type_map: list[str], branch: Branch) -> None:
    path = DPPath(system) / "type_map.raw"
    if not type_map or not path.is_file():
        return
    elements = [str(name) for name in path.load_txt(dtype=str, ndmin=1)]
    missing = [element for element in elements if element not in type_map]
    if missing:
        raise UserError(
            f"{branch.where}: {path} lists {', '.join(missing)}, which type_map of the model does "
            f"not have ({', '.join(type_map[:20])}{', ...' if len(type_map) > 20 else ''}). Add "
            "them to type_map (deepmd-kit extends a pretrained model to new elements), or remove "
            "them from the data"
        )


check_before_commands(check_command)
