"""Parameter groups in deepmd-kit's trainer, which knows only one.

``Trainer._create_optimizer`` puts all parameters in one group, and ``_create_lr_scheduler`` gives
every group the same rate. Both keep doing so unless the schedule has ``groups``.
"""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING, Any

from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable


def let_schedules_group_parameters() -> None:
    """Ask the learning-rate schedule for parameter groups, where it has any.

    A schedule with groups is a :class:`deepmd_mft.training.rates.MFTRate`.
    """
    module: Any = importlib.import_module("deepmd.pt.train.training")
    trainer = module.Trainer
    in_one_group, at_one_rate = trainer._create_optimizer, trainer._create_lr_scheduler
    load_state = trainer._load_optimizer_state

    @functools.wraps(in_one_group)
    def create_optimizer(self: Any, optimizer_class: Any, **kwargs: Any) -> Any:
        schedule = self.lr_schedule
        if not hasattr(schedule, "groups"):
            return in_one_group(self, optimizer_class, **kwargs)
        if self.opt_type not in ("Adam", "AdamW") or self.sharding.enabled:
            raise UserError(
                "learning_rate of type mft: the rates of layers need the optimizer Adam or AdamW "
                f"and zero_stage 0 (here: {self.opt_type}, zero_stage {self.sharding.stage})"
            )
        # without the `module.` of distributed training: patterns of names hold there too
        groups = schedule.group(self._get_inner_module().named_parameters())
        optimizer = optimizer_class([{"params": group.parameters} for group in groups], **kwargs)
        step = self.start_step
        schedule.wake(step)

        def wake_for_the_next_step(*_args: Any) -> None:
            nonlocal step
            step += 1
            schedule.wake(step)

        optimizer.register_step_post_hook(wake_for_the_next_step)
        return optimizer

    @functools.wraps(at_one_rate)
    def create_lr_scheduler(optimizer: Any, lr_schedule: Any, start_step: int) -> Any:
        scheduler = at_one_rate(optimizer, lr_schedule, start_step)
        if not hasattr(lr_schedule, "groups"):
            return scheduler
        same = scheduler.lr_lambdas[0]
        factors = [group.factor for group in lr_schedule.groups]
        return type(scheduler)(
            optimizer,
            [functools.partial(_scaled, same, factor) for factor in factors],
            last_epoch=start_step - 1,
        )

    @functools.wraps(load_state)
    def load_optimizer_state(self: Any, state: dict[str, Any] | None) -> None:
        try:
            load_state(self, state)
        except ValueError as error:
            raise UserError(
                f"the optimizer's state in the checkpoint does not fit ({error}): it was trained "
                "with other rates of layers. Restart with the learning_rate of its input, or "
                "begin anew with --init-model"
            ) from None

    trainer._create_optimizer = create_optimizer
    trainer._create_lr_scheduler = staticmethod(create_lr_scheduler)
    trainer._load_optimizer_state = load_optimizer_state


def _scaled(rate: Callable[[int], float], factor: float, step: int) -> float:
    return factor * rate(step)
