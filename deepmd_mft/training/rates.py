"""The learning rate ``mft``: a native schedule, scaled by layer, with layers that rest.

Every parameter has a *depth*: 0 for heads, 1 for the last message-passing layer of a descriptor, 2
for the one before, and so on to its embeddings. Its rate is the schedule's times
``backbone_factor * layer_decay ** (depth - 1)``, or the schedule's itself for a head: layer-wise
learning-rate decay as in JMP (arXiv 2310.16802, section 5). Adam does not see a scaled gradient, so
the factors belong to the optimiser's parameter groups (:mod:`deepmd_mft.bridge.optimizer`).
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deepmd.dpmodel.utils.learning_rate import BaseLR

from deepmd_mft.backbones.families import layer_of
from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch


@dataclass
class Group:
    """Parameters of one depth.

    Attributes
    ----------
    depth : int
        0 for heads.
    factor : float
        What the schedule's rate is multiplied with.
    parameters : list of torch.nn.Parameter
        Without those that the input froze (``trainable: false``, ``frozen``).
    """

    depth: int
    factor: float
    parameters: list[torch.nn.Parameter]


@BaseLR.register("mft")
class MFTRate(BaseLR):
    """A native schedule for the heads, and what the layers of the descriptor get of it.

    Parameters
    ----------
    schedule : dict, optional
        A native schedule by ``type``, with its own options; ``{"type": "exp"}`` by default.
    backbone_factor : float
        Rate of the descriptor's last layer, in units of the heads'.
    layer_decay : float
        What a layer gets of the rate of the layer above it.
    frozen : list of str
        Shell patterns of parameter names that are not trained, such as ``*type_embedding*``.
    lp_steps : int
        Steps, counted from the start of the training, in which only the heads are trained (linear
        probing, then fine-tuning: Kumar et al., arXiv 2202.10054).
    unfreeze_every : int
        After ``lp_steps`` wake one layer after the other, from the last down, so many steps apart;
        0 wakes all at once.
    plateau : dict, optional
        ``factor``, ``patience`` and ``start``: from step ``start`` on, at which the schedule has
        come to its end, the rate is multiplied by ``factor`` whenever ``patience`` looks at the
        validation data brought nothing better (JMP's fine-tuning: warm-up, cosine, then reduction
        on plateaus).
    **kwargs
        Those of every native schedule: ``start_lr``, ``stop_lr``, ``warmup_steps``, ...
    """

    def __init__(
        self,
        start_lr: float,
        num_steps: int,
        *,
        schedule: dict[str, Any] | None = None,
        backbone_factor: float = 1.0,
        layer_decay: float = 1.0,
        frozen: list[str] | None = None,
        lp_steps: int = 0,
        unfreeze_every: int = 0,
        plateau: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.pop("type", None)
        self.plateau = plateau
        self.factor = 1.0
        end = (plateau or {}).get("start") or num_steps
        if end > num_steps:
            raise ValueError(f"plateau starts at step {end}, after the last, {num_steps}")
        self.inner = BaseLR(
            **{"type": "exp", **(schedule or {})},
            start_lr=start_lr,
            num_steps=end,
            **kwargs,
        )
        # a warmup_ratio is one of the schedule's steps
        warmup = {"warmup_steps": self.inner.warmup_steps, "warmup_ratio": None}
        super().__init__(start_lr, num_steps, **{**kwargs, **warmup})
        self.backbone_factor = backbone_factor
        self.layer_decay = layer_decay
        self.frozen = list(frozen or [])
        self.lp_steps = lp_steps
        self.unfreeze_every = unfreeze_every
        self.groups: list[Group] = []

    def _decay_value(self, step: Any) -> Any:
        last = self.inner.decay_num_steps
        rate = self.inner._decay_value(step.clip(max=last))  # noqa: SLF001  (of the same class)
        return rate * self.factor

    def set_plateau(self, factor: float) -> None:
        """Set what plateaus have made of the rate so far, at a restart."""
        self.factor = factor

    def see_validation(self, step: int, looks_since_best: int) -> float:
        """Reduce the rate if a look at the validation data ends a plateau; return the factor.

        Parameters
        ----------
        step : int
            Steps done.
        looks_since_best : int
            How many looks brought nothing better.
        """
        if self.plateau is not None and step >= (self.plateau.get("start") or 0):
            patience = self.plateau["patience"]
            if looks_since_best and looks_since_best % patience == 0:
                self.factor *= self.plateau["factor"]
        return self.factor

    def group(self, named: Iterable[tuple[str, torch.nn.Parameter]]) -> list[Group]:
        """Divide parameters into ``groups`` by depth, the heads first.

        Parameters
        ----------
        named : iterable of (str, torch.nn.Parameter)
            Of the whole training, as ``named_parameters`` gives them. Those that ``frozen`` names
            are frozen.

        Returns
        -------
        list of Group
            The first is the heads', at the schedule's own rate.

        Raises
        ------
        UserError
            If a pattern of ``frozen`` fits no parameter.
        """
        parameters = dict(named)
        self._freeze(parameters)
        layers = [layer for name in parameters if (layer := layer_of(name)) is not None]
        number = max(layers, default=-1) + 1
        by_depth: dict[int, list[torch.nn.Parameter]] = {0: []}
        for name, parameter in parameters.items():
            if parameter.requires_grad:
                by_depth.setdefault(_depth(name, number), []).append(parameter)
        self.groups = [
            Group(depth, self._factor(depth), by_depth[depth]) for depth in sorted(by_depth)
        ]
        return self.groups

    def wake(self, step: int) -> None:
        """Let the layers rest that are not trained yet at a step, and wake the others."""
        for group in self.groups:
            awake = group.depth == 0 or step >= self.lp_steps + (
                (group.depth - 1) * self.unfreeze_every
            )
            for parameter in group.parameters:
                parameter.requires_grad_(awake)

    def _factor(self, depth: int) -> float:
        return 1.0 if depth == 0 else self.backbone_factor * self.layer_decay ** (depth - 1)

    def _freeze(self, parameters: dict[str, torch.nn.Parameter]) -> None:
        for pattern in self.frozen:
            chosen = fnmatch.filter(parameters, pattern)
            if not chosen:
                some = ", ".join(list(parameters)[:3])
                raise UserError(
                    f"learning_rate: frozen has the pattern '{pattern}', which fits no parameter; "
                    f"names are like {some}"
                )
            for name in chosen:
                parameters[name].requires_grad_(False)


def _depth(name: str, number: int) -> int:
    """Return the depth of a parameter of a model whose descriptors have ``number`` layers."""
    if ".descriptor." not in name:
        return 0
    layer = layer_of(name)
    return number + 1 if layer is None else number - layer
