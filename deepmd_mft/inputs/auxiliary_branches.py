"""Auxiliary branches of a filled input: models, losses and data, from template and checkpoint."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deepmd_mft.bridge.inputs import own_options
from deepmd_mft.checkpoints.branch import is_force_field, is_property, property_columns
from deepmd_mft.errors import UserError
from deepmd_mft.inputs.auxiliary import FORCE_FIELD, Auxiliary, check_labels, learns
from deepmd_mft.inputs.folders import Contents
from deepmd_mft.inputs.parts import LOSSES_OF_HEADS, RANDOM

if TYPE_CHECKING:
    from deepmd_mft.inputs.pretrained import Pretrained

#: Options of a fitting net that hold for a head of any kind.
_OF_ANY_HEAD = (
    *("neuron", "activation_function", "resnet_dt", "precision", "seed", "trainable"),
    *("numb_fparam", "numb_aparam", "default_fparam"),
)


@dataclass(frozen=True)
class Template:
    """What a template gives to auxiliary branches.

    Attributes
    ----------
    config : dict
        The whole input; not changed.
    main : str
        Its property branch.
    """

    config: dict[str, Any]
    main: str

    def parts(self, name: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Return copies of model, loss and data of one of its branches."""
        sections = (
            self.config["model"]["model_dict"],
            self.config["loss_dict"],
            self.config["training"]["data_dict"],
        )
        model, loss, data = (copy.deepcopy(section[name]) for section in sections)
        return model, loss, data

    @property
    def others(self) -> list[str]:
        """Its auxiliary branches."""
        return [name for name in self.config["model"]["model_dict"] if name != self.main]

    @property
    def force_fields(self) -> list[str]:
        """Those of them that are force fields."""
        branches = self.config["model"]["model_dict"]
        return [name for name in self.others if is_force_field(branches[name])]

    def head(self, name: str) -> str:
        """Return the head that one of its branches starts from."""
        return str(self.config["model"]["model_dict"][name].get("finetune_head", name))


@dataclass
class Built:
    """An auxiliary branch of the filled input.

    Attributes
    ----------
    name : str
    model, loss, data : dict
        Its parts of the JSON; ``model`` has the template's or checkpoint's own type map and
        descriptor, or none.
    head : str or None
        The branch of the checkpoint whose head it inherits.
    asked : Auxiliary
        What it was built from.
    origin : str or None
        The branch of the template that it is, or stands for.
    """

    name: str
    model: dict[str, Any]
    loss: dict[str, Any]
    data: dict[str, Any]
    head: str | None
    asked: Auxiliary
    origin: str | None

    @property
    def kind(self) -> str:
        """What it learns, in words."""
        if is_property(self.model):
            return ", ".join(property_columns(self.model))
        return "energies and forces"


def build_auxiliary(
    template: Template,
    asked: list[Auxiliary],
    heads: dict[str, str],
    pretrained: Pretrained | None,
    notes: list[str],
) -> tuple[list[Built], list[Contents]]:
    """Return the auxiliary branches, and what their data hold.

    Those of the template stay, unless others are named instead of them. The only new force field
    among these takes the place of the template's: its head, loss and settings.

    Parameters
    ----------
    template : Template
    asked : list of Auxiliary
    heads : dict of str
        Which head of the checkpoint a branch starts from; under an empty name that of the
        template's only branch.
    pretrained : Pretrained, optional
    notes : list of str
        Filled: what could not be read off.

    Raises
    ------
    UserError
        If a branch, its head or its labels are not there, or it cannot be told what it learns.
    """
    given = _named(template, asked)
    contents = {name: one.contents() for name, one in given.items()}
    new = [name for name in given if name not in template.others]
    kept = [name for name in template.others if not new or name in given]
    plan = {name: given.get(name, Auxiliary(name)) for name in [*kept, *new]}
    place = _place(template, given, contents, pretrained, kept)
    one = kept[0] if len(kept) == 1 and not place else next(iter(place), None)
    heads = dict(heads)
    if "" in heads:
        if one is None:
            raise UserError(
                f"--aux-head {heads['']}: which of {', '.join(plan)} starts from it? Write "
                "NAME=HEAD"
            )
        heads.setdefault(one, heads.pop(""))
    for name in heads:
        if name not in plan:
            raise UserError(
                f"--aux-head: there is no auxiliary branch '{name}' ({', '.join(plan)})"
            )
    built = []
    for name, auxiliary in plan.items():
        own = contents.get(name, Contents())
        found = _build(template, auxiliary, name, place.get(name), heads.get(name), own, pretrained)
        if name in template.others and found.head and not any(a.name == name for a in asked):
            found.name = found.head  # as the checkpoint calls it
        if pretrained is not None and not found.head and is_force_field(found.model):
            notes.append(
                f"branch {found.name} starts with a new head; the checkpoint has "
                f"{', '.join(pretrained.branches)}, which --aux-head {found.name}=HEAD inherits"
            )
        built.append(found)
    names = [template.main, *(found.name for found in built)]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UserError(
            f"two branches are called '{twice.pop()}'; give the auxiliary one another name: "
            "--aux-train NAME=DIR"
        )
    return built, list(contents.values())


def _named(template: Template, asked: list[Auxiliary]) -> dict[str, Auxiliary]:
    """Return what was asked for by the names of the branches."""
    found: dict[str, Auxiliary] = {}
    for one in asked:
        if not one.name and len(template.others) != 1:
            raise UserError(
                f"the template has {len(template.others) or 'no'} auxiliary branches "
                f"({', '.join(template.others)}); say which the data are for: "
                f"--aux-train NAME={(one.train or one.valid)[0]}"
            )
        name = one.name or template.others[0]
        if name == template.main:
            raise UserError(
                f"'{name}' is the template's property branch, whose data are given by --train and "
                "--valid; give the auxiliary one another name"
            )
        if name in found:
            both = Auxiliary(name, found[name].labels or one.labels)
            both.train, both.valid = found[name].train + one.train, found[name].valid + one.valid
            one = both  # noqa: PLW2901
        if name not in template.others and not one.train:
            raise UserError(f"{one.where} has no training data; give --aux-train {name}=DIR")
        found[name] = one
    return found


def _place(
    template: Template,
    given: dict[str, Auxiliary],
    contents: dict[str, Contents],
    pretrained: Pretrained | None,
    kept: list[str],
) -> dict[str, str]:
    """Return which new force field stands for which of the template: if both are the only ones."""
    known = [] if pretrained is None else pretrained.aliases
    new = [
        name
        for name, one in given.items()
        if name not in template.others and name not in known and not learns(one, contents[name])
    ]
    free = [name for name in template.force_fields if name not in kept]
    return {new[0]: free[0]} if len(new) == len(free) == 1 else {}


def _build(
    template: Template,
    one: Auxiliary,
    name: str,
    place: str | None,
    said: str | None,
    contents: Contents,
    pretrained: Pretrained | None,
) -> Built:
    """Build one branch: model from the checkpoint, the template or its settings and the data."""
    head = _head(template, name, place, said, pretrained)
    origin = name if name in template.others else place
    if origin is not None:
        model, loss, data = template.parts(origin)
    elif head is not None and pretrained is not None:
        model = {}
        loss, data = _settings(template, one, pretrained.branches[head])
    else:
        model, loss, data = _new(template, one, learns(one, contents), contents)
    if head is not None and pretrained is not None:
        source = pretrained.branches[head]
        if model and is_property(model) != is_property(source):
            raise UserError(
                f"{one.where}: head '{head}' of {pretrained.path} is "
                f"{'a property' if is_property(source) else 'no property'}'s, the branch is not; "
                "choose another with --aux-head, or RANDOM"
            )
        # what else makes the branch what it is: its type (dpa4), excluded pairs, a given bias
        model = {**own_options(source), "fitting_net": copy.deepcopy(source["fitting_net"])}
        model["finetune_head"] = head
    elif pretrained is not None:
        model["finetune_head"] = RANDOM
    labels = list(property_columns(model)) if is_property(model) else []
    if one.labels and one.labels != (labels or [FORCE_FIELD]):
        raise UserError(
            f"{one.where} learns {', '.join(labels) or 'energies and forces'}, as in the template "
            f"or checkpoint, not {', '.join(one.labels)}; give the new branch a name of its own"
        )
    check_labels(one, labels, contents)
    return Built(name, model, loss, data, head, one, origin)


def _head(
    template: Template,
    name: str,
    place: str | None,
    said: str | None,
    pretrained: Pretrained | None,
) -> str | None:
    """Return the branch of the checkpoint whose head a branch inherits; None for a new one."""
    if pretrained is None or said == RANDOM:
        return None
    if said is not None:
        return pretrained.get(said)
    if name in template.others:
        wanted = template.head(name)
        return None if wanted == RANDOM else pretrained.get(wanted)
    if place is None:
        return pretrained.find(name)
    only = next(iter(pretrained.branches)) if len(pretrained.branches) == 1 else None
    found = pretrained.find(template.head(place)) or only
    return found if found and is_force_field(pretrained.branches[found]) else None


def _settings(
    template: Template, one: Auxiliary, source: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return loss and data of a branch that only the checkpoint has."""
    if not is_property(source):
        _, loss, data = template.parts(_force_field(template, one))
        return loss, data
    loss = _property_loss(template, source["fitting_net"])
    return loss, template.parts(template.main)[2]


def _new(
    template: Template, one: Auxiliary, labels: list[str], contents: Contents
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return model, loss and data of a branch that neither template nor checkpoint has."""
    if not labels:
        return template.parts(_force_field(template, one))
    model, _, data = template.parts(template.main)
    model = {"type": "mft", "fitting_net": _property_net(model, labels, contents)}
    return model, _property_loss(template, model["fitting_net"]), data


def _force_field(template: Template, one: Auxiliary) -> str:
    if not template.force_fields:
        raise UserError(
            f"{one.where} is a force field, but the template has none to take settings from; take "
            "an MFT template"
        )
    return template.force_fields[0]


def _property_net(main: dict[str, Any], labels: list[str], contents: Contents) -> dict[str, Any]:
    """Return a fitting net like the main property's, for other labels."""
    old = main["fitting_net"]
    dims = [contents.labels[name] for name in labels]
    own = {
        "property_name": labels[0] if len(labels) == 1 else labels,
        "task_dim": dims[0] if len(set(dims)) == 1 else dims,
    }
    kept = {key: value for key, value in old.items() if key in _OF_ANY_HEAD}
    if old.get("type") == "mft_property" and not isinstance(old.get("intensive"), list):
        kept = {key: value for key, value in old.items() if key != "type"}
    kept.setdefault("intensive", True)
    return {"type": "mft_property", **kept, **own}


def _property_loss(template: Template, net: dict[str, Any]) -> dict[str, Any]:
    """Return a loss like the main property's, for another head."""
    kind = LOSSES_OF_HEADS.get(net.get("type", ""), ("property",))[0]
    old = template.parts(template.main)[1]
    own = {} if kind == "property" else {"property_name": net["property_name"]}
    if old.get("type") != kind:
        return {"type": kind, **own}
    # a regulariser of the backbone counts once; weights are by property
    apart = ("property_name", "task_dim", "num_classes", "class_weights", "weight", "regularizers")
    return {**{key: value for key, value in old.items() if key not in apart}, **own}
