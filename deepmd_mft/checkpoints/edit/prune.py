"""A checkpoint with what is needed of it: some branches, some elements, no optimiser."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from deepmd_mft.bridge.models import build_model, change_types, molecule_outputs, types_among
from deepmd_mft.checkpoints.branch import SINGLE, branches_of, choose_branch
from deepmd_mft.checkpoints.file import branch_weights, read_state
from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

EXTRA = "_extra_state"
#: Molecules on which old and new model are compared before anything is written, and their atoms.
MOLECULES, ATOMS = 8, 12
#: Angstrom between neighbours on the lattice that they are cut from, and the noise on it.
SPACING, NOISE = 1.4, 0.1
#: Largest difference between them, in units of the largest value, by the precision of the weights.
ROUNDING = {torch.float64: 1e-12, torch.float32: 1e-5}


@dataclass(frozen=True)
class Pruned:
    """What is left of a checkpoint.

    Attributes
    ----------
    state : dict
        As :func:`~deepmd_mft.checkpoints.file.read_state` returns it.
    branches : list of str
        Those that are kept; empty names for a single-task model.
    of : int
        How many there were.
    type_map : list of str
        Of the first of them.
    difference : float
        The largest between outputs of old and new, in units of the largest output; 0 where no
        type map was changed.
    """

    state: dict[str, Any]
    branches: list[str]
    of: int
    type_map: list[str]
    difference: float


def prune(
    path: Path, branches: list[str] | None = None, type_map: list[str] | None = None
) -> Pruned:
    """Return a checkpoint with the chosen branches and elements; the optimiser's state is left out.

    Parameters
    ----------
    path : Path
        A ``.pt`` of ``dp --pt train``.
    branches : list of str, optional
        Names or aliases; all by default. A multi-task checkpoint stays one, also with one branch,
        so that ``finetune_head`` finds it by its name.
    type_map : list of str, optional
        The elements to keep, in their order; all by default.

    Raises
    ------
    UserError
        If there is no such branch or element, or an output changes by more than rounding.
    """
    state = read_state(path)
    params = state[EXTRA]["model_params"]
    names = _chosen(params, path, branches)
    models = {name: branches_of(params)[name] for name in names}
    weights = {name: branch_weights(state, name, path) for name in names}
    difference = 0.0
    if type_map:
        changes = _Changes(path, list(type_map))
        for name in names:
            models[name], weights[name] = changes.make(name, models[name], weights[name])
        difference = changes.difference
    kept = models[""] if "model_dict" not in params else {"model_dict": models}
    if "shared_dict" in params:
        kept["shared_dict"] = _shared_entries(params, models)
    found: dict[str, Any] = {
        f"model.{name or SINGLE}.{key}": value
        for name, own in weights.items()
        for key, value in own.items()
    }
    found[EXTRA] = {**state[EXTRA], "model_params": kept}
    first = list(models[names[0]].get("type_map", []))
    return Pruned(found, names, len(branches_of(params)), first, difference)


def _shared_entries(params: dict[str, Any], models: dict[str, Any]) -> dict[str, Any]:
    """Return ``shared_dict`` as the kept branches have it; other tools read the network there."""
    pairs = [
        (branches_of(params)[name].get(key), own[key])
        for name, own in models.items()
        for key in ("type_map", "descriptor")
        if key in own
    ]
    return {
        name: next((new for old, new in pairs if old == entry), entry)
        for name, entry in params["shared_dict"].items()
    }


def _chosen(params: dict[str, Any], path: Path, branches: list[str] | None) -> list[str]:
    if not branches:
        return list(branches_of(params))
    found = [choose_branch(params, path, one, list) for one in branches]
    return [name for name in branches_of(params) if name in found]  # in the checkpoint's order


class _Changes:
    """Changes the type maps of branches; what they shared they share afterwards.

    Parameters
    ----------
    path : Path
        For messages.
    type_map : list of str
        The new one.
    """

    def __init__(self, path: Path, type_map: list[str]) -> None:
        twice = sorted({one for one in type_map if type_map.count(one) > 1})
        if twice:
            raise UserError(f"--type-map has {', '.join(twice)} twice")
        self.path = path
        self.type_map = type_map
        self.difference = 0.0
        self.made: dict[tuple[int, torch.Size], torch.Tensor] = {}

    def make(
        self, name: str, params: dict[str, Any], weights: dict[str, torch.Tensor]
    ) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """Return JSON and weights of a branch with the new type map."""
        where = f"branch '{name}' of {self.path}" if name else str(self.path)
        new_params = self._params(params, where)
        old = build_model(params, weights)
        try:
            changed = change_types(build_model(params, weights), self.type_map)
        except NotImplementedError as error:
            raise UserError(
                f"{where}: deepmd-kit cannot change the type map of this model ({error}); leave "
                "--type-map out"
            ) from None
        new_weights = {key: self._shared(weights[key], value) for key, value in changed.items()}
        self._compare(old, build_model(new_params, new_weights), where)
        return new_params, new_weights

    def _shared(self, old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        """Return the tensor to write: the old one if nothing changed, the same for the same."""
        if torch.equal(old, new.to(old.device)):
            return old
        return self.made.setdefault((old.data_ptr(), new.shape), new.detach().cpu().clone())

    def _params(self, params: dict[str, Any], where: str) -> dict[str, Any]:
        """Return the JSON of a branch with the new type map, and what counts types in it."""
        params = copy.deepcopy(params)
        old = params.get("type_map")
        if not isinstance(old, list) or params.get("spin") or "models" in params:
            raise UserError(
                f"{where}: the type map of a model with spin, or combined of several, is not "
                "changed here; leave --type-map out"
            )
        unknown = [one for one in self.type_map if one not in old]
        if unknown:
            raise UserError(
                f"{where} does not know {', '.join(unknown)}; --type-map chooses among "
                f"{' '.join(old)}"
            )
        params["type_map"] = list(self.type_map)
        places = (
            (params, "atom_exclude_types"),
            (params, "pair_exclude_types"),
            (params.get("descriptor", {}), "exclude_types"),
        )
        for section, key in places:
            if section.get(key):
                section[key] = types_among(old, self.type_map, section[key])
        given = params.get("fitting_net", {}).get("atom_ener")
        if given:
            params["fitting_net"]["atom_ener"] = [given[old.index(one)] for one in self.type_map]
        for key, values in (params.get("preset_out_bias") or {}).items():
            params["preset_out_bias"][key] = [values[old.index(one)] for one in self.type_map]
        seen = (params.get("info") or {}).get("observed_type")
        if seen:
            params["info"]["observed_type"] = [one for one in seen if one in self.type_map]
        return params

    def _compare(self, old: Any, new: Any, where: str) -> None:
        """Compare the outputs of two models on molecules with all the elements."""
        limit = ROUNDING[_coarsest(old)]
        for symbols, positions in molecules(self.type_map):
            one = molecule_outputs(old, symbols, positions)
            other = molecule_outputs(new, symbols, positions)
            for name, expected in one.items():
                scale = float(expected.abs().max()) or 1.0
                difference = float((other[name] - expected).abs().max()) / scale
                if not difference <= limit:
                    raise UserError(
                        f"{where}: its output {name} changes by {difference:.2g} of its size with "
                        "the new type map; nothing was written"
                    )
                self.difference = max(self.difference, difference)


def _coarsest(model: Any) -> torch.dtype:
    """Return float32 if any weight is of that or less, else float64."""
    kinds = {one.dtype for one in model.parameters()}
    return torch.float64 if kinds <= {torch.float64} else torch.float32


def molecules(type_map: list[str]) -> list[tuple[list[str], np.ndarray]]:
    """Return symbols and positions, natoms x 3 in Angstrom, of molecules made of all the elements.

    Parameters
    ----------
    type_map : list of str
        Every element is in one of them at least.
    """
    generator = np.random.default_rng(0)
    number = max(MOLECULES, -(-len(type_map) // ATOMS))
    symbols = list(np.resize(generator.permutation(type_map), number * ATOMS))
    side = int(np.ceil(ATOMS ** (1 / 3)))
    lattice = SPACING * np.stack(np.meshgrid(*[np.arange(side)] * 3), axis=-1).reshape(-1, 3)
    found = []
    for row in range(number):
        places = generator.permutation(lattice)[:ATOMS] + generator.normal(0, NOISE, (ATOMS, 3))
        chosen = [str(one) for one in symbols[row * ATOMS : (row + 1) * ATOMS]]
        found.append((list(generator.permutation(chosen)), places))
    return found
