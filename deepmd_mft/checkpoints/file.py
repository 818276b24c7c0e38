"""Reading a checkpoint file."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, Any

import torch

from deepmd_mft.checkpoints.branch import SINGLE
from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path


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


def write_state(path: Path, state: dict[str, Any], made: dict[str, Any]) -> None:
    """Write weights as a checkpoint without an optimiser, which only ``--restart`` needs.

    Parameters
    ----------
    path : Path
        A file of its own, or a temporary name (:mod:`deepmd_mft.files.staging`).
    state : dict
        As :func:`read_state` returns it.
    made : dict
        How they were made: numbers and texts, kept in the file under ``dp_mft``.
    """
    # deepmd-kit asks for the key with --init-model too, and takes None for no state
    torch.save({"model": state, "optimizer": None, "dp_mft": made}, path)


def has_optimizer(path: Path) -> bool:
    """Whether a checkpoint holds the state of an optimiser, without which none goes on."""
    whole = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return isinstance(whole, dict) and bool(whole.get("optimizer"))


def branch_weights(state: dict[str, Any], branch: str, path: Path) -> dict[str, torch.Tensor]:
    """Return the weights of one branch, named as in the branch's model.

    Parameters
    ----------
    state : dict
        As :func:`read_state` returns it.
    branch : str
        Empty for a single-task model.
    path : Path
        For the message.

    Raises
    ------
    UserError
        If the state lacks the branch.
    """
    prefix = f"model.{branch or SINGLE}."
    found = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    if not found:
        raise UserError(f"{path} has no weights of branch '{branch or SINGLE}'")
    return found
