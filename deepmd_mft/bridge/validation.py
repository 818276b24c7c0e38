"""Looking at validation data while deepmd-kit's trainer runs, and ending it early.

deepmd-kit has a validator that is called after every step (``validating`` in the input), for
single-task energy models only. Its place in the trainer is used here for other heads.
"""

from __future__ import annotations

import functools
import importlib
import logging
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(f"deepmd.{__name__}")


class Validator(Protocol):
    """What is called after every step."""

    def run(self, *, step_id: int, display_step: int, lr: float, save_checkpoint: Any) -> None:
        """Look at the model after ``display_step`` steps."""


class StopTraining(Exception):  # noqa: N818  (no error)
    """Ends a training after the step; the text says why."""


class Training:
    """What a validator may know and do of deepmd-kit's trainer.

    Parameters
    ----------
    trainer : deepmd.pt.train.training.Trainer
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self.is_chief = trainer.rank == 0
        self.start_step = int(trainer.start_step)
        self.num_steps = int(trainer.num_steps)
        self.restarted = bool(trainer.restart_training)
        self.schedule = trainer.lr_schedule
        self.prefix = str(trainer.save_ckpt)
        self.changes_bias_at_the_end = bool(trainer.change_bias_after_training)

    @property
    def model_params(self) -> dict[str, Any]:
        """The JSON of the model, all branches."""
        return dict(self._trainer._get_inner_module().model_params)

    @property
    def notes(self) -> dict[str, Any]:
        """Numbers and texts that checkpoints carry.

        A restart does not find them here: deepmd-kit puts its own new ones in their place while it
        loads the checkpoint.
        """
        return self._trainer._get_inner_module().train_infos

    def weights(self) -> dict[str, Any]:
        """Return the weights of all branches, named as in a checkpoint."""
        return dict(self._trainer._get_inner_module().state_dict())

    def agree(self, value: Any) -> Any:
        """Return what the first process of a distributed training has."""
        return self._trainer._broadcast_value_from_rank0(value)

    def apply_schedule(self) -> None:
        """Give the optimiser the rates of the next step anew: the schedule has changed."""
        scheduler = self._trainer.scheduler
        rates = [
            base * of_step(scheduler.last_epoch)
            for base, of_step in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
        ]
        for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        scheduler._last_lr = rates

    def save_last(self, display_step: int, lr: float) -> None:
        """Save a checkpoint of the run itself, as after the last step."""
        trainer = self._trainer
        trainer.latest_model = trainer.ckpt_store.path_for(display_step)
        trainer.save_model(trainer.latest_model, lr=lr, step=display_step - 1)
        if self.is_chief:
            trainer.ckpt_store.publish(trainer.latest_model)
        if trainer.model_ema is not None:
            trainer.latest_ema_model = trainer.ema_ckpt_store.path_for(display_step)
            trainer.save_ema_model(trainer.latest_ema_model, lr=lr, step=display_step - 1)
            if self.is_chief:
                trainer.ema_ckpt_store.publish(trainer.latest_ema_model)


def watch_trainings(make: Callable[[Training], Validator]) -> None:
    """Have trainings from here on watched.

    Parameters
    ----------
    make : callable
        Takes the training when it is built and its checkpoint loaded. The validator may raise
        :class:`StopTraining`.
    """
    trainer: Any = importlib.import_module("deepmd.pt.train.training").Trainer
    create, run = trainer._create_full_validators, trainer._run

    @functools.wraps(create)
    def create_validators(self: Any, **kwargs: Any) -> tuple[Any, Any]:
        _, of_ema = create(self, **kwargs)  # the first is for energies alone: refused or absent
        return make(Training(self)), of_ema

    @functools.wraps(run)
    def run_until_stopped(self: Any) -> None:
        try:
            run(self)
        except StopTraining as why:
            log.info("%s", why)

    trainer._create_full_validators = create_validators
    trainer._run = run_until_stopped


def build_branch(params: dict[str, Any]) -> Any:
    """Build the model of a branch beside a training, whose random numbers are left alone.

    Parameters
    ----------
    params : dict
        The JSON of the branch.

    Returns
    -------
    torch.nn.Module
        In evaluation mode, with weights of no meaning.
    """
    torch: Any = importlib.import_module("torch")
    models: Any = importlib.import_module("deepmd.pt.model.model")
    env: Any = importlib.import_module("deepmd.pt.utils.env")
    with torch.random.fork_rng():
        return models.get_model(params).to(env.DEVICE).eval()
