"""The smallest neighbour selection that is the same network.

With ``use_dynamic_sel`` DPA-3 keeps all neighbours within its cutoffs, and ``e_sel`` and ``a_sel``
are only the width of its lists and, divided by ``sel_reduce_factor``, two constants of the network.
As long as both ratios are the same numbers, and the lists hold every neighbour, the network is the
same; a wide list costs a small network most of its time in deepmd-kit.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from deepmd_mft.backbones.families import family_of_type
from deepmd_mft.bridge.models import descriptor_outputs
from deepmd_mft.checkpoints.file import read_state
from deepmd_mft.errors import UserError
from deepmd_mft.structures.elements import ELEMENTS
from deepmd_mft.structures.neighbours import most_neighbours
from deepmd_mft.structures.structure_set import StructureSet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Frames on which old and new network are compared before anything is written.
COMPARED = 8
#: Largest difference between them, in units of the largest value of a frame, in float32.
ROUNDING = 1e-5
#: Room above the most neighbours found, for structures that come later.
MARGIN = 0.2
#: Of the width of the neighbour list.
STATISTICS = ("repflows.mean", "repflows.stddev")


@dataclass(frozen=True)
class Selection:
    """The part of a DPA-3's JSON that says how many neighbours it keeps."""

    e_sel: int
    a_sel: int
    sel_reduce_factor: float

    @classmethod
    def of(cls, repflow: dict[str, Any]) -> Selection:
        """Read it from the ``repflow`` section, with deepmd-kit's default of the factor."""
        factor = float(repflow.get("sel_reduce_factor", 10.0))
        return cls(int(repflow["e_sel"]), int(repflow["a_sel"]), factor)

    @property
    def ratios(self) -> tuple[float, float]:
        """The two constants of the network."""
        return self.e_sel / self.sel_reduce_factor, self.a_sel / self.sel_reduce_factor

    def tightened(self, edges: int, angles: int, margin: float = MARGIN) -> Selection:
        """Return the smallest selection with exactly these ratios that holds the neighbours.

        Parameters
        ----------
        edges, angles : int
            Most neighbours of an atom within ``e_rcut`` and within ``a_rcut``. Where they are more
            than this selection holds, the new one is wider.
        margin : float
            Room to leave, as a share of them.
        """
        common = math.gcd(self.e_sel, self.a_sel)
        e_step, a_step = self.e_sel // common, self.a_sel // common
        wanted = max(edges * (1 + margin) / e_step, angles * (1 + margin) / a_step)
        steps = max(1, math.ceil(wanted))
        if steps > common and self.holds(edges, angles):
            return self
        while True:  # steps that are a multiple of common keep the ratios exactly at the latest
            found = Selection(
                steps * e_step, steps * a_step, self.sel_reduce_factor * steps / common
            )
            if found.ratios == self.ratios:
                return found
            steps += 1

    def holds(self, edges: int, angles: int) -> bool:
        """Whether the lists hold so many neighbours of an atom."""
        return edges <= self.e_sel and angles <= self.a_sel


@dataclass(frozen=True)
class Change:
    """What was found for one descriptor.

    Attributes
    ----------
    where : str
        Its place in the JSON.
    cutoffs : tuple of float
        Of edges and angles, in Angstrom.
    most : tuple of int
        Most neighbours of an atom within them.
    old, new : Selection
    """

    where: str
    cutoffs: tuple[float, float]
    most: tuple[int, int]
    old: Selection
    new: Selection


def has_dpa3(model: dict[str, Any]) -> bool:
    """Whether a model has a descriptor whose lists can be changed."""
    return any(True for _ in _descriptors(model, "model"))


def tighten(
    model: dict[str, Any],
    folders: list[Path],
    margin: float = MARGIN,
    most: dict[float, int] | None = None,
) -> tuple[dict[str, Any], list[Change]]:
    """Return a model's JSON with the smallest selections, and what was changed.

    Parameters
    ----------
    model : dict
        The ``model`` section of an input, or the one in a checkpoint.
    folders : list of Path
        deepmd-kit systems, or sets of them: every frame that the model is to see.
    margin : float
        Room above the most neighbours found, as a share of them.
    most : dict of float to int, optional
        Most neighbours by cutoff, where they were counted before.

    Raises
    ------
    UserError
        If there is no DPA-3, or another selection would be another network.
    """
    model = copy.deepcopy(model)
    descriptors = list(_descriptors(model, "model"))
    if not descriptors:
        raise UserError("the model has no descriptor of type dpa3")
    for where, descriptor in descriptors:
        _check(where, descriptor["repflow"])
    cutoffs = sorted({cut for _, one in descriptors for cut in _cutoffs(one)})
    if most is None or not most.keys() >= set(cutoffs):
        structures = (
            one for folder in folders for one in StructureSet.open(folder).with_some_names()
        )
        most = dict(zip(cutoffs, most_neighbours(structures, cutoffs)[1], strict=True))
    changes = []
    for where, descriptor in descriptors:
        repflow = descriptor["repflow"]
        old, cuts = Selection.of(repflow), _cutoffs(descriptor)
        found = most[cuts[0]], most[cuts[1]]
        new = old.tightened(*found, margin)
        changes.append(Change(where, cuts, found, old, new))
        repflow.update(vars(new))
    return model, changes


def tighten_state(state: Any, widths: dict[int, int]) -> Any:
    """Return what ``torch.load`` gave, with the statistics as wide as the new lists.

    Parameters
    ----------
    state : dict, list, torch.Tensor, ...
        A checkpoint, whole: the optimiser's state stays.
    widths : dict of int to int
        New ``e_sel`` by the old one.

    Raises
    ------
    UserError
        If the columns differ, as where they were computed from data: then the network would change.
    """
    if isinstance(state, dict):
        for name, value in list(state.items()):
            if not str(name).endswith(STATISTICS) or not isinstance(value, torch.Tensor):
                state[name] = tighten_state(value, widths)
                continue
            if not torch.equal(value, value[:, :1].expand_as(value)):
                raise UserError(
                    f"{name} differs between neighbours: it was computed from data, with the "
                    "selection as it is; another one would be another network"
                )
            if value.shape[1] in widths:
                state[name] = value[:, :1].repeat(1, widths[value.shape[1]], 1)
    elif isinstance(state, list):
        state[:] = [tighten_state(value, widths) for value in state]
    return state


def tighten_checkpoint(
    path: Path, folders: list[Path], margin: float = MARGIN, most: dict[float, int] | None = None
) -> tuple[dict[str, Any], list[Change], int]:
    """Return a checkpoint with the smallest selections, what was changed, and frames compared.

    Parameters
    ----------
    path : Path
        A ``.pt`` of ``dp --pt train``.
    folders, margin, most
        As for :func:`tighten`.

    Raises
    ------
    UserError
        As :func:`tighten`, :func:`tighten_state` and :func:`check_equal`.
    """
    extra = read_state(path)["_extra_state"]
    old = extra["model_params"]
    new, changes = tighten(old, folders, margin, most)
    whole = torch.load(path, map_location="cpu", weights_only=True)
    weights = whole.get("model", whole)
    compared = check_equal(old, new, folders, weights)
    weights["_extra_state"]["model_params"] = new
    return tighten_state(whole, {c.old.e_sel: c.new.e_sel for c in changes}), changes, compared


def check_equal(
    old: dict[str, Any],
    new: dict[str, Any],
    folders: list[Path],
    weights: dict[str, Any] | None = None,
) -> int:
    """Compare the descriptors of two models on frames of the data that the old lists hold.

    Parameters
    ----------
    old, new : dict
        ``model`` sections that differ in selections alone.
    folders : list of Path
        Frames are taken from each, evenly.
    weights : dict of str to torch.Tensor, optional
        Those of a checkpoint of the old one; random ones by default.

    Returns
    -------
    int
        Frames compared.

    Raises
    ------
    UserError
        If an output differs by more than rounding.
    """
    olds = [descriptor for _, descriptor in _descriptors(old, "model")]
    drawn = [one for folder in folders for one in _some_frames(folder)]
    frames = [one for one in drawn if all(_holds(descriptor, one) for descriptor in olds)]
    if not frames:
        return 0
    if len(frames) > COMPARED:
        frames = [frames[i] for i in np.linspace(0, len(frames) - 1, COMPARED).astype(int)]
    symbols = sorted({ELEMENTS[z - 1] for numbers, _, _ in frames for z in numbers})
    compared: list[dict[str, Any]] = []
    pairs = zip(_descriptors(old, "model"), _descriptors(new, "model"), strict=True)
    for (where, before), (_, after) in pairs:
        state, elements = None, symbols
        if weights is not None:
            place = where.split("/")
            if place[1] == "shared_dict":
                continue  # comes again in the branches, which have the weights
            name = place[2] if place[1] == "model_dict" else "Default"
            elements = (old["model_dict"][name] if place[1] == "model_dict" else old)["type_map"]
            prefix = f"model.{name}.atomic_model.descriptor."
            state = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
        if before in compared:  # another branch with the same one
            continue
        compared.append(before)
        outputs = [descriptor_outputs(one, elements, frames, state) for one in (before, after)]
        for expected, found in zip(*outputs, strict=True):
            scale, difference = float(expected.abs().max()), float((expected - found).abs().max())
            if not difference <= ROUNDING * scale:
                raise UserError(
                    f"{where}: the descriptor changes by {difference:.2g} of {scale:.2g} with the "
                    "new selection; nothing was written"
                )
    return len(frames)


def _some_frames(folder: Path) -> list[Any]:
    data = StructureSet.open(folder)
    rows = np.unique(np.linspace(0, len(data) - 1, COMPARED).astype(int))
    return list(data.take(rows))


def _holds(descriptor: dict[str, Any], structure: Any) -> bool:
    """Whether the lists hold all neighbours of the atoms of a structure."""
    e_rcut, a_rcut = _cutoffs(descriptor)
    cutoffs = sorted({e_rcut, a_rcut})
    most = dict(zip(cutoffs, most_neighbours([structure], cutoffs)[1], strict=True))
    return Selection.of(descriptor["repflow"]).holds(most[e_rcut], most[a_rcut])


def _descriptors(section: Any, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield place and JSON of every DPA-3 in a section."""
    if isinstance(section, dict):
        if section.get("type") == "dpa3":
            yield where, section
            return
        for key, value in section.items():
            yield from _descriptors(value, f"{where}/{key}")
    elif isinstance(section, list):
        for number, value in enumerate(section):
            yield from _descriptors(value, f"{where}/{number}")


def _cutoffs(descriptor: dict[str, Any]) -> tuple[float, float]:
    edges, angles = family_of_type("dpa3").neighbour_lists(descriptor)
    return edges.rcut, angles.rcut


def _check(where: str, repflow: dict[str, Any]) -> None:
    for name in ("e_sel", "a_sel", "e_rcut", "a_rcut"):
        if not isinstance(repflow.get(name), int | float):
            raise UserError(f"{where}: {name} is not a number, so there is nothing to keep")
    if not repflow.get("use_dynamic_sel", False):
        raise UserError(
            f"{where}: without use_dynamic_sel the network depends on e_sel and a_sel themselves; "
            "another selection would be another network"
        )
    if not float(repflow.get("fix_stat_std", 0.3)):
        raise UserError(
            f"{where}: with fix_stat_std 0 the statistics depend on e_sel; another selection would "
            "be another network"
        )
