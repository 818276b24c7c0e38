"""Whether a checkpoint can be read, and has the heads that an input asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deepmd.utils.model_branch_dict import get_model_dict

from deepmd_mft.checkpoints.branch import (
    SINGLE,
    as_list,
    head_type,
    is_property,
    property_columns,
)
from deepmd_mft.checkpoints.file import has_optimizer, read_model_params, read_state
from deepmd_mft.errors import UserError
from deepmd_mft.inputs.parts import RANDOM

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from deepmd_mft.inputs.branches import Branch
    from deepmd_mft.inputs.findings import Findings


def check_checkpoint(path: Path, branches: list[Branch], findings: Findings, option: str) -> None:
    """Check that a checkpoint can be read and has what the option and the input ask for.

    Parameters
    ----------
    path : Path
        As given on the command line; deepmd-kit adds ``.pt`` for ``--restart`` and
        ``--init-model``.
    branches : list of Branch
        The branches of the input.
    findings : Findings
        Filled.
    option : {"finetune", "init_model", "restart"}
        With the first, heads are chosen by ``finetune_head``; the last needs an optimiser.
    """
    finetune = option == "finetune"
    path = checkpoint_path(path, finetune=finetune)
    model_params = findings.attempt(read_model_params, path)
    if model_params is not None and option == "restart":
        findings.attempt(_check_optimizer, path)
    if model_params is None:
        return
    if not finetune:
        for branch in branches:
            findings.attempt(_check_resumed, branch, model_params, path, option)
        return
    for branch in branches:
        findings.attempt(_check_head, branch, model_params, path)
        findings.attempt(_check_preset_bias, branch, findings)
    if branches:
        findings.attempt(_check_lists, branches[0], model_params, path)


def _check_lists(branch: Branch, model_params: dict[str, Any], path: Path) -> None:
    """Check the width of the neighbour lists, on which the shape of DPA-3's statistics depends."""
    source = next(iter(model_params.get("model_dict", {"": model_params}).values()))
    mine, theirs = (
        (one.get("descriptor", {}).get("repflow") or {}).get("e_sel")
        for one in (branch.model, source)
    )
    if None not in (mine, theirs) and mine != theirs:
        raise UserError(
            f"e_sel is {mine} in the input and {theirs} in {path}, so its weights do not fit. If "
            "`dp-mft input` fitted the lists to the data, fine-tune the checkpoint that it wrote "
            "(_dp_mft_input/checkpoint of the input); else fill the input from this one"
        )


def checkpoint_path(path: Path, *, finetune: bool) -> Path:
    """Return the file that deepmd-kit opens: it adds ``.pt`` to all but ``--finetune``."""
    return path if finetune or path.suffix == ".pt" else path.with_name(path.name + ".pt")


def _check_optimizer(path: Path) -> None:
    if not has_optimizer(path):
        raise UserError(
            f"{path} holds no optimiser (it was pruned, averaged or interpolated), so no training "
            "goes on from it; start a new one with --init-model or --finetune"
        )


def inherited_head(branch: Branch, model_params: dict[str, Any]) -> str | None:
    """Return the head of a checkpoint that a branch starts from with ``--finetune``.

    Parameters
    ----------
    branch : Branch
        With ``--model-branch`` of the command line, if given, as its ``finetune_head``.
    model_params : dict
        Of the checkpoint.

    Returns
    -------
    str or None
        By the name or alias that is asked for, there or not; None for a new head.
    """
    several = "model_dict" in model_params
    head = branch.model.get("finetune_head")
    if head is None and branch.name:
        there = branch.name in model_params.get("model_dict", {SINGLE: {}})
        head = branch.name if there else RANDOM
    elif not head:  # deepmd-kit takes the only head over, but none of several
        head = RANDOM if several else SINGLE
    return None if head == RANDOM else str(head)


def _check_head(branch: Branch, model_params: dict[str, Any], path: Path) -> None:
    """Check that the checkpoint has the head that a branch starts from, and that it fits."""
    head = inherited_head(branch, model_params)
    if head is None:
        return
    source = _named(head, model_params)
    if source is None:
        raise UserError(
            f"{branch.where}: finetune_head '{head}' is not in {path}; it has "
            f"{', '.join(model_params.get('model_dict', [SINGLE]))}. Choose one of them, or RANDOM "
            "for a new head"
        )
    _check_same_case_embedding(branch, head, source, path)
    differing = _other_head(branch.model, source)
    if differing:
        raise UserError(
            f"{branch.where} would inherit head '{head}' of {path}, which is another net: "
            f"{differing}. Make them equal, or set finetune_head to RANDOM for a new head"
        )


def _named(head: str, model_params: dict[str, Any]) -> dict[str, Any] | None:
    """Return the JSON of a branch by its name or alias."""
    if "model_dict" not in model_params:
        return model_params if head == SINGLE else None
    aliases = get_model_dict(model_params["model_dict"])[0]
    return model_params["model_dict"][aliases[head]] if head in aliases else None


#: Options of a fitting net that make its output what it is, beside its weights.
_NET = (
    *("neuron", "activation_function", "resnet_dt", "numb_fparam", "numb_aparam", "task_dim"),
    *("intensive", "readout", "num_classes", "predict_variance", "vectors", "charges"),
)


def _other_head(mine: dict[str, Any], theirs: dict[str, Any]) -> str:
    """Say in what a branch has another head than that whose weights it takes; empty if in nothing.

    deepmd-kit compares nothing: weights that fit are those of another function then, for instance
    an energy's for a property; others end in a list of all tensors.
    """
    kinds = [head_type(one).replace("mft_property", "property") for one in (mine, theirs)]
    if kinds[0] != kinds[1]:
        return f"type is {head_type(mine)}, in the checkpoint {head_type(theirs)}"
    own, other = mine.get("fitting_net", {}), theirs.get("fitting_net", {})
    count = max(1, len(property_columns(mine)))
    return "; ".join(
        f"{key} is {own[key]}, in the checkpoint {other[key]}"
        for key in _NET
        if key in own and key in other and _plain(own[key], count) != _plain(other[key], count)
    )


def _plain(value: Any, count: int) -> list[Any]:
    """Return a value for each property; a readout that only follows ``intensive`` is none."""
    values = [None if one in ("mean", "sum") else one for one in as_list(value)]
    return values * count if len(values) == 1 else values or [None] * count


def _check_resumed(branch: Branch, model_params: dict[str, Any], path: Path, option: str) -> None:
    """Check that a branch that goes on has the elements and the head of the checkpoint.

    deepmd-kit loads the weights by their places alone.
    """
    source = _named(branch.name or SINGLE, model_params)
    if source is None:
        return  # deepmd-kit says which weights are missing
    option = f"--{option.replace('_', '-')}"
    mine, theirs = branch.model.get("type_map"), source.get("type_map")
    if mine != theirs:
        raise UserError(
            f"{branch.where}: type_map is {' '.join(mine or [])}, in {path} "
            f"{' '.join(theirs or [])}; {option} would take the weights of one element for "
            "another's. Make them equal; --finetune is for other elements"
        )
    differing = _other_head(branch.model, source)
    if differing:
        raise UserError(
            f"{branch.where}: {option} goes on with the head of {path}, but {differing}. Make them "
            "equal; --finetune with finetune_head RANDOM is for another head"
        )


def _check_preset_bias(branch: Branch, findings: Findings) -> None:
    """Check that no given energies come on top of those of an inherited head.

    deepmd-kit fits to the data what an inherited head leaves of them, takes ``preset_out_bias`` for
    the result of that fit, and adds it to what the head has.
    """
    if not branch.model.get("preset_out_bias"):
        return
    text = (
        f"{branch.where}: preset_out_bias would be added to the energies that an inherited head "
        "has already; deepmd-kit shifts those to the data by itself: take preset_out_bias out"
    )
    if branch.model.get("finetune_head", RANDOM) != RANDOM:
        raise UserError(text)
    if not branch.name:
        findings.warn(f"{text}, unless the head is a new one")


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


def check_trained_elements(
    branch: Branch, elements: Iterable[str], path: Path, findings: Findings
) -> None:
    """Warn of elements of the data that no branch of a checkpoint was trained on.

    Parameters
    ----------
    branch : Branch
    elements : iterable of str
        Of its training and validation structures.
    path : Path
        The checkpoint.
    findings : Findings
        Filled.
    """
    trained = trained_elements(path)
    new = [] if trained is None else sorted(set(elements) - trained)
    if new:
        findings.warn(
            f"{branch.where}: nothing in {path} shows that it was trained on {', '.join(new)} "
            f"(its branches saw {', '.join(sorted(trained or ()))}). Their type vectors start at "
            "random: expect fine-tuning to be of less use for these structures, and to need more "
            "of them"
        )


def trained_elements(path: Path) -> set[str] | None:
    """Return the elements that the branches of a checkpoint were trained on.

    deepmd-kit 3.2 records them when it computes its statistics (``info/observed_type``). In
    checkpoints without that, the energy bias (a least-squares fit) is exactly zero for elements
    that no frame has; a property head's bias says nothing.

    Returns
    -------
    set of str or None
        None if a branch says neither.

    Raises
    ------
    UserError
        If the checkpoint cannot be read.
    """
    state = read_state(path)
    params = state["_extra_state"]["model_params"]
    found: set[str] = set()
    for name, branch in params.get("model_dict", {"Default": params}).items():
        seen = (branch.get("info") or {}).get("observed_type")
        bias = state.get(f"model.{name}.atomic_model.out_bias")
        if not seen and bias is not None and not is_property(branch):
            zero = (bias == 0).all(dim=-1).all(dim=0).tolist()
            seen = [
                kind for kind, absent in zip(branch["type_map"], zero, strict=False) if not absent
            ]
        if not seen:
            return None
        found.update(seen)
    return found
