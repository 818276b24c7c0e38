"""The systems of an input: which there are, their elements and their cells."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from deepmd.dpmodel.utils.lmdb_data import is_lmdb
from deepmd.utils.data_system import process_systems

from deepmd_mft.errors import UserError
from deepmd_mft.structures.arrays import open_array, place_of
from deepmd_mft.structures.cells import left_handed
from deepmd_mft.structures.npy import System

if TYPE_CHECKING:
    from deepmd_mft.inputs.branches import Branch

HEADS_OF_MOLECULES = ("mft_spatial_extent", "mft_dipole_norm")
#: Rows of a file that are looked at in one go.
BLOCK = 65536


def list_systems(part: dict[str, Any], branch: Branch, section: str) -> list[str]:
    """Expand ``systems`` as deepmd-kit does; an LMDB is one system.

    Raises
    ------
    UserError
        If there are none.
    """
    systems = part["systems"]
    try:
        found = process_systems(systems, patterns=part.get("rglob_patterns"))
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"{branch.where}, {section}/systems = {systems!r} cannot be read ({error})"
        ) from None
    if found:
        return [str(one) for one in found]
    listed = systems if isinstance(systems, list) else [systems]
    hint = f"; paths are relative to {Path.cwd()}"
    if any(Path(str(one)).exists() and is_lmdb(str(one)) for one in listed):
        hint = "; an LMDB is written as a string, one for each branch, not in a list"
    raise UserError(
        f"{branch.where}: no system found in {section}/systems = {systems!r} (a system is a "
        f"folder with type.raw){hint}"
    )


def open_system(system: str) -> System:
    """Open a system that a training reads.

    Raises
    ------
    UserError
        If it has no sets, no frames, or one without coordinates.
    """
    opened = System.open(place_of(system))
    if not opened.starts[-1]:
        raise UserError(f"{system} has no frames; remove it from the input")
    return opened


def check_elements(systems: list[System], type_map: list[str], branch: Branch) -> None:
    """Check that the model knows every element that the systems list."""
    unknown: dict[str, list[str]] = {}
    for system in systems:
        if not type_map:
            continue
        if system.symbols is not None:
            path = system.folder / "type_map.raw"
            missing = [element for element in system.symbols if element not in type_map]
        else:  # deepmd-kit takes the numbers of type.raw for those of the model
            path = system.folder / "type.raw"
            missing = [f"type {n}" for n in np.unique(system.types) if n >= len(type_map)]
        if missing:
            unknown[str(path)] = missing
    if unknown:
        raise unknown_elements(unknown, type_map, branch)


def unknown_elements(
    unknown: dict[str, list[str]], type_map: list[str], branch: Branch
) -> UserError:
    """Return the error about elements, by the file that lists them, that the model lacks."""
    first = next(iter(unknown))
    others = f" and {len(unknown) - 1} more systems" if len(unknown) > 1 else ""
    verb = "list" if others else "lists"
    missing = sorted({element for found in unknown.values() for element in found})
    known = ", ".join(type_map[:20]) + (", ..." if len(type_map) > 20 else "")
    return UserError(
        f"{branch.where}: {first}{others} {verb} {', '.join(missing)}, which type_map of the "
        f"model does not have ({known}). Add them to type_map (deepmd-kit extends a pretrained "
        "model to new elements), or remove them from the data"
    )


def check_cells(system: System, branch: Branch) -> None:
    """Check that a system is a molecule, or has cells from which deepmd-kit makes images.

    Raises
    ------
    UserError
        If cells are missing, left-handed or without volume, or the head is for molecules only.
    """
    if not system.periodic:
        return
    if branch.head in HEADS_OF_MOLECULES:
        raise periodic_error(str(system.folder), branch)
    for number in range(len(system.sets)):
        path, nframes = system.path(number, "box"), system.nframes(number)
        if not path.is_file():
            raise UserError(
                f"{path} does not exist. If these are molecules, add an empty file `nopbc` to "
                f"{system.folder}; else write the cells"
            )
        box = np.asarray(open_array(path))
        if box.size != 9 * nframes:
            raise UserError(
                f"{path} has shape {box.shape}, but {nframes} frames (coord.npy) need "
                f"{nframes} x 9 numbers"
            )
        problem = cell_problem(box.reshape(-1, 3, 3))
        if problem:
            raise UserError(f"{path}: {problem}")


def periodic_error(system: str, branch: Branch) -> UserError:
    """Return the error about a crystal under a head that is defined for molecules."""
    return UserError(
        f"{branch.where}: {system} has a periodic cell, but {branch.head} is defined for molecules "
        "(its value would depend on the origin). If these are molecules, add an empty file "
        "`nopbc` to the system; else use fitting_net mft_property"
    )


def cell_problem(cells: np.ndarray, frames: np.ndarray | None = None) -> str:
    """Say what is wrong with cells; an empty string if nothing is.

    Parameters
    ----------
    cells : np.ndarray
        ncells x 3 x 3, in Angstrom.
    frames : np.ndarray, optional
        Which frames they are of; counted from 0 if left out.
    """
    frames = np.arange(len(cells)) if frames is None else frames
    finite = np.isfinite(cells).all(axis=(1, 2))
    flat = ~finite | (np.abs(np.linalg.det(np.where(finite[:, None, None], cells, 0.0))) < 1e-6)
    if flat.any():
        return (
            f"{rows_text(frames[flat], len(cells), 'frame')}: cell without volume; write the "
            "cell, or for molecules the empty file `nopbc` (in an LMDB: no `cells`)"
        )
    wrong = left_handed(cells)
    if wrong.any():
        return (
            f"{rows_text(frames[wrong], len(cells), 'frame')}: left-handed cell (negative "
            "determinant), for which deepmd-kit 3.2 makes too few periodic images or none, without "
            "a word. The negative of a cell is the same lattice, right-handed: replace these cells "
            "by -cell (deepmd_mft.structures.cells.right_handed does) and leave coordinates and "
            "labels as they are"
        )
    return ""


def rows_text(rows: np.ndarray, total: int, word: str = "row") -> str:
    """Say which rows of a file, or frames, are meant; the first ten by number."""
    listed = ", ".join(map(str, rows[:10])) + (", ..." if len(rows) > 10 else "")
    return f"{len(rows)} of {total} {word}s ({word} {listed}, counted from 0)"
