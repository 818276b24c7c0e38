"""Elements and labels of the systems that an input trains on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from deepmd.dpmodel.utils.lmdb_data import is_lmdb
from deepmd.utils.data_system import process_systems
from deepmd.utils.path import DPPath

from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    from deepmd_mft.inputs.branches import Branch, Findings

HEADS_OF_MOLECULES = ("mft_spatial_extent", "mft_dipole_norm")


def check_data(branch: Branch, findings: Findings) -> None:
    """Check elements and labels of a branch's training and validation systems.

    Systems in LMDB are checked by deepmd-kit as it reads them.
    """
    for section in ("training_data", "validation_data"):
        part = branch.data.get(section)
        if not part or "systems" not in part:
            continue
        systems = findings.attempt(list_systems, part, branch, section) or []
        findings.attempt(_check_elements, systems, branch.model.get("type_map", []), branch)
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


def _check_elements(systems: list[str], type_map: list[str], branch: Branch) -> None:
    """Check that the model knows every element that the systems list."""
    unknown: dict[str, list[str]] = {}  # system: elements
    for system in systems:
        path = DPPath(system) / "type_map.raw"
        if not type_map or not path.is_file():
            continue
        elements = [str(name) for name in path.load_txt(dtype=str, ndmin=1)]
        missing = [element for element in elements if element not in type_map]
        if missing:
            unknown[str(path)] = missing
    if unknown:
        first = next(iter(unknown))
        others = f" and {len(unknown) - 1} more systems" if len(unknown) > 1 else ""
        verb = "list" if others else "lists"
        missing = sorted({element for found in unknown.values() for element in found})
        known = ", ".join(type_map[:20]) + (", ..." if len(type_map) > 20 else "")
        raise UserError(
            f"{branch.where}: {first}{others} {verb} {', '.join(missing)}, which type_map of the "
            f"model does not have ({known}). Add them to type_map (deepmd-kit extends a pretrained "
            "model to new elements), or remove them from the data"
        )
