"""The labels that an input learns from: there, finite, and of the right width."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deepmd_mft.bridge.inputs import label_requirement
from deepmd_mft.errors import UserError
from deepmd_mft.inputs.systems import BLOCK, rows_text
from deepmd_mft.structures.arrays import open_array
from deepmd_mft.structures.class_labels import not_classes

if TYPE_CHECKING:
    from deepmd_mft.inputs.branches import Branch
    from deepmd_mft.structures.arrays import Place
    from deepmd_mft.structures.npy import System


@dataclass(frozen=True)
class Label:
    """A label that a branch needs.

    Attributes
    ----------
    name : str
        Its file is ``set.*/<name>.npy``.
    columns : int
        Numbers per frame, or per atom if ``atomic``.
    atomic : bool
    of_property : bool
        Whether the property head learns it.
    may_miss : bool
        Whether the loss leaves out frames without it.
    num_classes : int or None
        Number of classes if it is one.
    """

    name: str
    columns: int
    atomic: bool = False
    of_property: bool = False
    may_miss: bool = False
    num_classes: int | None = None

    def width(self, natoms: int) -> int:
        """Return the numbers of a frame."""
        return self.columns * (natoms if self.atomic else 1)


def needed_labels(branch: Branch) -> list[Label]:
    """List what must be in every set: labels that the loss weighs, and frame parameters."""
    net = branch.fitting_net
    needed = []
    if branch.is_property:
        classes = net.get("num_classes", 2) if branch.head == "mft_classification" else None
        needed += [
            Label(name, dim, of_property=True, may_miss=branch.masks, num_classes=classes)
            for name, dim in branch.labels.items()
        ]
    elif branch.loss_type == "mft_force_field":
        needed += weighed_labels(branch)
    if net.get("numb_fparam") and net.get("default_fparam") is None:
        needed.append(Label("fparam", net["numb_fparam"]))
    if net.get("numb_aparam"):
        needed.append(Label("aparam", net["numb_aparam"], atomic=True))
    return needed


def weighed_labels(branch: Branch) -> list[Label]:
    """List the labels to which the prefactors of an energy loss give weight."""
    return [
        Label(item.key, item.ndof, atomic=item.atomic)
        for item in label_requirement(branch.loss)
        if item.special_shape is None
    ]


def read_label(system: System, number: int, label: Label, branch: Branch) -> np.ndarray | None:
    """Check the shape and values of a label in a set of a system.

    Returns
    -------
    np.ndarray or None
        Labels of a property, nframes x columns, NaN where missing; None for other labels.

    Raises
    ------
    UserError
        If the file is missing, cannot be read, has another shape, or has NaN or inf.
    """
    path, nframes = system.path(number, label.name), system.nframes(number)
    if not path.is_file():
        if label.may_miss:
            return np.full((nframes, label.columns), np.nan)
        raise _absent(path, system.arrays(number), label, branch)
    array = open_array(path)
    _check_shape(path, array, nframes, len(system.types), label)
    rows = array.reshape(nframes, -1)
    bad = np.concatenate(
        [
            _bad_rows(rows[start : start + BLOCK], may_miss=label.may_miss)
            for start in range(0, nframes, BLOCK)
        ]
        or [np.array([], dtype=bool)]
    )
    if bad.any():
        raise UserError(
            f"{path} has {'inf' if label.may_miss else 'NaN or inf'} in "
            f"{rows_text(np.flatnonzero(bad), nframes)}; remove these frames or mend their "
            "labels" + _masking(label, branch)
        )
    if not label.of_property:
        return None
    values = np.asarray(rows, dtype=np.float64)
    if label.num_classes:
        check_classes(values, label, branch, str(path))
    return values


def check_classes(values: np.ndarray, label: Label, branch: Branch, path: str) -> None:
    """Raise UserError if a label is none of the classes; NaN is left out."""
    top = (label.num_classes or 2) - 1
    bad = not_classes(values, top + 1)
    if len(bad):
        raise UserError(
            f"{branch.where}: {path} has the label {bad[0]:g}; with num_classes {top + 1} the "
            f"labels must be whole numbers from 0 to {top}"
        )


def _check_shape(path: Place, array: np.ndarray, nframes: int, natoms: int, label: Label) -> None:
    """Check the shape as deepmd-kit's training needs it: it takes row by row."""
    rows = 1 if nframes == 1 else (array.shape[0] if array.ndim else 1)
    if rows != nframes:
        turned = array.ndim == 2 and array.shape == (label.width(natoms), nframes)
        raise UserError(
            f"{path} has {rows} rows, but the set has {nframes} frames (coord.npy); one row "
            f"per frame is needed (its shape is {array.shape}{'; transpose it' if turned else ''})"
        )
    width = array.size // max(nframes, 1)
    if nframes and width != label.width(natoms):
        if label.of_property:
            raise UserError(
                f"{path} has {width} column(s), but the head expects {label.columns}; make "
                "task_dim of fitting_net and loss equal to the columns of the file"
            )
        atoms = f" for {natoms} atoms" if label.atomic else ""
        raise UserError(
            f"{path} has {width} numbers per frame, but {label.width(natoms)} are needed{atoms}"
        )


def _bad_rows(rows: np.ndarray, *, may_miss: bool) -> np.ndarray:
    bad = np.isinf(rows) if may_miss else ~np.isfinite(rows)
    return np.asarray(bad.any(axis=1))


def _absent(path: Place, there: list[str], label: Label, branch: Branch) -> UserError:
    return UserError(
        f"{branch.where}: {path} does not exist, but the "
        f"{'fitting net' if label.name in ('fparam', 'aparam') else 'loss'} needs {label.name} "
        f"(the set has {', '.join(there)}). Write it, or remove the system from the input"
        + _masking(label, branch)
    )


def _masking(label: Label, branch: Branch) -> str:
    if label.of_property and branch.is_mft_head and not label.may_miss:
        return ", or set missing_labels: mask in the loss to leave out what is missing"
    return ""
