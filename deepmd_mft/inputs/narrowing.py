"""Neighbour lists that fit the data, in a filled input and in a copy of its checkpoint.

``--finetune`` needs a checkpoint with the descriptor of the input, so both change together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from deepmd_mft.checkpoints.branch import as_list
from deepmd_mft.checkpoints.edit.tighten import (
    MARGIN,
    check_equal,
    has_dpa3,
    tighten,
    tighten_checkpoint,
)
from deepmd_mft.errors import UserError
from deepmd_mft.files.checksums import file_checksum
from deepmd_mft.files.staging import check_file, staged_file
from deepmd_mft.inputs.branches import read_branches
from deepmd_mft.inputs.data import SECTIONS
from deepmd_mft.structures.places import ROLE, find_set_folders

if TYPE_CHECKING:
    from pathlib import Path

    from deepmd_mft.checkpoints.edit.tighten import Change

#: Lists are left as they are where they hold all neighbours and would keep more than this of their
#: width: nothing would be won.
WORTH_IT = 0.75


@dataclass
class Narrowed:
    """What was done.

    Attributes
    ----------
    config : dict
        The input.
    checkpoint : Path or None
        The one to fine-tune: a copy if its lists were changed.
    notes : list of str
    """

    config: dict[str, Any]
    checkpoint: Path | None
    notes: list[str] = field(default_factory=list)


def narrow(
    config: dict[str, Any], checkpoint: Path | None, out: Path, *, overwrite: bool = False
) -> Narrowed:
    """Return the input with lists for its data; write the checkpoint that goes with it.

    Neighbours are counted in all training and validation data of the input, and in the other sets
    of the split that these are of: test structures may be denser. A margin is added.

    Parameters
    ----------
    config : dict
        The filled input.
    checkpoint : Path, optional
    out : Path
        Where the input will lie; the checkpoint is written beside it, see :func:`copy_of`.
    overwrite : bool
        Replace that.

    Raises
    ------
    UserError
        If the copy cannot be written.
    """
    unchanged = Narrowed(config, checkpoint)
    if not has_dpa3(config["model"]):
        return unchanged
    folders, missing = data_folders(config, out.absolute().parent)
    if missing or not folders:
        unchanged.notes.append(
            "the neighbour lists stay as they are: "
            + (f"{missing[0]} is not there to be counted" if missing else "there are no data")
        )
        return unchanged
    if checkpoint is not None:
        check_file(copy_of(checkpoint, out), [checkpoint, *folders], overwrite=overwrite)
    try:
        model, changes = tighten(config["model"], folders, MARGIN)
        if not any(map(_worth_it, changes)):
            return unchanged
        if checkpoint is None:
            state, compared = None, check_equal(config["model"], model, folders)
        else:
            most = {
                cutoff: number
                for one in changes
                for cutoff, number in zip(one.cutoffs, one.most, strict=True)
            }
            state, changes, compared = tighten_checkpoint(checkpoint, folders, MARGIN, most)
    except UserError as error:
        unchanged.notes.append(f"the neighbour lists stay as they are ({error})")
        return unchanged
    found = Narrowed({**config, "model": model}, checkpoint)
    if checkpoint is not None:
        found.checkpoint = copy_of(checkpoint, out)
        with staged_file(found.checkpoint, [checkpoint, *folders], overwrite=overwrite) as partial:
            torch.save(state, partial)
        found.config = _recorded(found.config, found.checkpoint, folders)
    found.notes += [
        f"e_sel {one.old.e_sel} -> {one.new.e_sel}, a_sel {one.old.a_sel} -> {one.new.a_sel}, "
        f"sel_reduce_factor {one.old.sel_reduce_factor:g} -> {one.new.sel_reduce_factor:g}: at "
        f"most {one.most[0]} and {one.most[1]} neighbours in {_listed(folders)}; the same network "
        f"on {compared} frames (--no-tighten leaves them)"
        for one in {(one.old, one.new): one for one in changes if one.old != one.new}.values()
    ]
    return found


def copy_of(checkpoint: Path, out: Path) -> Path:
    """Return where the checkpoint with other lists is written: beside the input, by its name."""
    return out.with_name(f"{out.stem}.{checkpoint.stem}.tight.pt")


def _recorded(config: dict[str, Any], checkpoint: Path, folders: list[Path]) -> dict[str, Any]:
    """Return the input with the copy as its checkpoint, and what that is a copy of."""
    record = config["_dp_mft_input"]
    new = {
        **record,
        "checkpoint": str(checkpoint),
        "checkpoint_sha256": file_checksum(checkpoint),
        "tightened": {
            "original": record["checkpoint"],
            "original_sha256": record["checkpoint_sha256"],
            "margin": MARGIN,
            "data": list(map(str, folders)),
        },
    }
    return {**config, "_dp_mft_input": new}


def _worth_it(change: Change) -> bool:
    fits = change.old.holds(*change.most)
    return not fits or change.new.e_sel < WORTH_IT * change.old.e_sel


def data_folders(config: dict[str, Any], base: Path) -> tuple[list[Path], list[Path]]:
    """Return the folders of an input's data and of the sets beside them, and those not there.

    Parameters
    ----------
    config : dict
    base : Path
        Where its relative paths start.
    """
    found: dict[Path, None] = {}  # in order, each once
    missing = []
    for branch in read_branches(config):
        for section in SECTIONS:
            for system in as_list((branch.data.get(section) or {}).get("systems")):
                path = base / str(system)
                if not path.is_dir():
                    missing.append(path)
                    continue
                found |= dict.fromkeys(one.resolve() for one in (path, *_beside(path)))
    return list(found), missing


def _beside(folder: Path) -> list[Path]:
    """Return the sets of the split that a set, or a system in one, is of."""
    for place in (folder.absolute(), folder.absolute().parent):
        if not _is_of_split(place.name):
            continue
        try:
            sets = find_set_folders([place.parent])
        except UserError:
            return []
        return [path for name, path in sets.items() if _is_of_split(name)]
    return []


def _is_of_split(name: str) -> bool:
    """Whether a set is called as those of a split, auxiliary ones left out."""
    return bool(ROLE.match(name)) and not name.lower().startswith("aux")


def _listed(folders: list[Path]) -> str:
    names = [folder.name for folder in folders]
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
