"""Whether a checkpoint can be read, and has the heads that an input asks for."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, Any

import torch
from deepmd.utils.model_branch_dict import get_model_dict

from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from deepmd_mft.preflight.branches import Branch, Findings


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


def read_state(path: Path) -> dict[str, Any]:
    """Return the weights of a checkpoint and, in ``_extra_state``, what it was trained with.

    Parameters
    ----------
    path : Path
        A ``.pt`` checkpoint of ``dp --pt train``; the optimiser's state is left out.

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
        state["_extra_state"]["model_params"]  # what makes it deepmd-kit's
        return dict(state)
    except Exception as error:  # noqa: BLE001  (torch raises many kinds on a foreign file)
        raise UserError(
            f"{path} is not a checkpoint of `dp --pt train` ({type(error).__name__}); frozen .pth "
            "models and checkpoints of other programs cannot be fine-tuned"
        ) from None


def read_model_params(path: Path) -> dict[str, Any]:
    """Return the model JSON that a checkpoint was trained with; see :func:`read_state`."""
    return dict(read_state(path)["_extra_state"]["model_params"])
