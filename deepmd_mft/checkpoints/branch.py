"""What a branch is, from its JSON: in an input, a checkpoint or a frozen model alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deepmd.utils.model_branch_dict import get_model_dict

from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

#: What deepmd-kit calls the branch of a single-task model.
SINGLE = "Default"
#: Key of a branch's ``info``, which deepmd-kit keeps in ``out.json``, checkpoints and frozen
#: models: true for the property that a training is for, where others are auxiliary.
MAIN = "main"
#: Heads whose property is intensive, with no option that says so.
INTENSIVE_HEADS = ("mft_dipole_norm", "mft_classification")
#: Fitting nets that predict neither a property nor an energy: deepmd-kit's tensors and densities.
OTHER_HEADS = ("dos", "dipole", "polar")


def head_type(model: Mapping[str, Any]) -> str:
    """Return the type of a branch's fitting net, deepmd-kit's default included.

    Parameters
    ----------
    model : mapping
        The branch's model: the JSON with ``descriptor`` and ``fitting_net``.
    """
    return str((model.get("fitting_net") or {}).get("type", "ener"))


def is_property(model: Mapping[str, Any]) -> bool:
    """Whether the branch learns a property, with a head of this package or deepmd-kit's."""
    kind = head_type(model)
    return kind.startswith("mft_") or kind == "property"


def property_columns(model: Mapping[str, Any]) -> dict[str, int]:
    """Return the properties of a branch and how many columns their label files have.

    Parameters
    ----------
    model : mapping
        As for :func:`head_type`; the defaults of ``task_dim`` need not be filled in.

    Returns
    -------
    dict of str to int
        Empty if the fitting net names no property.

    Raises
    ------
    UserError
        If ``task_dim`` is a list of another length than ``property_name``.
    """
    net = model.get("fitting_net") or {}
    names = as_list(net.get("property_name"))
    dims = as_list(net.get("task_dim", 1))
    if head_type(model) == "mft_classification":
        dims = [1]  # the number of the class
    if len(dims) == 1:
        dims *= len(names)
    if len(dims) != len(names):
        raise UserError(
            f"task_dim has {len(dims)} entries for {len(names)} properties ({', '.join(names)}); "
            "give one for each, or a single value for all"
        )
    return {str(name): int(dim) for name, dim in zip(names, dims, strict=True)}


def intensive_properties(model: Mapping[str, Any]) -> dict[str, bool]:
    """Return of each property of a branch whether it does not grow with the number of atoms.

    Parameters
    ----------
    model : mapping
        As for :func:`property_columns`.
    """
    names = list(property_columns(model))
    if head_type(model) in INTENSIVE_HEADS:
        return dict.fromkeys(names, True)
    flags = as_list((model.get("fitting_net") or {}).get("intensive", False))
    return dict(zip(names, flags * len(names) if len(flags) == 1 else flags, strict=True))


def as_list(value: Any) -> list[Any]:
    """Return a value of the JSON as a list: ``"gap"`` and ``["gap"]`` mean the same."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def branches_of(model_params: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the JSON of every branch by name; a single-task model has one without a name."""
    return dict(model_params.get("model_dict", {"": model_params}))


def is_force_field(model: Mapping[str, Any]) -> bool:
    """Whether the branch predicts energies and forces."""
    return not is_property(model) and head_type(model) not in OTHER_HEADS


def main_branches(branches: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the branches that may be the one a training is for; one if it can be told.

    Parameters
    ----------
    branches : mapping
        Branch JSON by name.

    Returns
    -------
    list of str
        The property branches; of several those that ``info`` calls main, if any.
    """
    found = [name for name, branch in branches.items() if is_property(branch)]
    marked = [name for name in found if (branches[name].get("info") or {}).get(MAIN) is True]
    return marked or found


def mft_strategy(others: Iterable[Mapping[str, Any]]) -> str:
    """Return what a multi-task fine-tuning is called, by the branches beside the main one.

    ``mft`` is that of the papers, with force fields; ``mft-property`` has auxiliary properties
    instead, ``mft-both`` beside them.
    """
    properties = [is_property(branch) for branch in others]
    if not any(properties):
        return "mft"
    return "mft-property" if all(properties) else "mft-both"


def choose_branch(
    model_params: dict[str, Any],
    path: Path,
    wanted: str | None,
    prefer: Callable[[dict[str, dict[str, Any]]], list[str]],
    otherwise: str = "several branches that may be meant",
) -> str:
    """Return the name of the branch that is meant; empty for a single-task model.

    Parameters
    ----------
    model_params : dict
        The model JSON of a checkpoint.
    path : Path
        For messages.
    wanted : str or None
        A branch or one of its aliases.
    prefer : callable
        Takes the branches and returns those that may be meant without being named.
    otherwise : str
        What the checkpoint has if that is not one.

    Raises
    ------
    UserError
        If there is no such branch, or it has to be said which.
    """
    branches = branches_of(model_params)
    if "model_dict" not in model_params:
        if wanted not in (None, "", SINGLE):
            raise UserError(
                f"{path} is a single-task checkpoint and has no branch '{wanted}'; leave it out"
            )
        return ""
    if wanted:
        aliases = get_model_dict(branches)[0]
        if wanted not in aliases:
            raise UserError(
                f"{path} has no branch '{wanted}'; it has {', '.join(branches)}. Choose one as "
                f"{path}:BRANCH"
            )
        return str(aliases[wanted])
    found = prefer(branches)
    if len(found) != 1:
        raise UserError(
            f"{path} has {otherwise}: {', '.join(found or branches)}; choose one as {path}:BRANCH"
        )
    return found[0]
