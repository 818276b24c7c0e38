"""Force-field heads that a fine-tuning takes over from its checkpoint, before the first step.

With ``finetune_head: NAME`` deepmd-kit's trainer shifts the energies of the elements by a least
squares fit to what the model leaves of the new labels; a branch that resumes is left as it is. What
that came to is looked at here, nothing is changed.
"""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np

#: What a model may take of a batch.
INPUTS = ("coord", "atype", "box", "fparam", "aparam", "charge_spin")


@dataclass(frozen=True)
class Inherited:
    """A force-field head that was taken over.

    Attributes
    ----------
    branch : str
        Its name in the input; empty for a single-task model.
    source : str
        Name of the branch of the checkpoint.
    model : torch.nn.Module
    take_sample : callable
        Gives the batches that deepmd-kit takes for statistics, one dict of tensors a system.
    shift : np.ndarray or None
        What was added to the energy of each element, ntypes, in eV; None if the branch resumes.
    """

    branch: str
    source: str
    model: Any
    take_sample: Callable[[], list[dict[str, Any]]]
    shift: np.ndarray | None

    @property
    def type_map(self) -> list[str]:
        """The elements."""
        return list(self.model.get_type_map())

    def sample(self) -> list[dict[str, Any]]:
        """Return batches of the training data, leaving the training's random numbers alone."""
        torch: Any = importlib.import_module("torch")
        take: Any = self.take_sample
        if self.shift is None:  # nobody took one before: do not have the trainer keep it
            take = take.__wrapped__
        with torch.random.fork_rng():
            return list(take())

    def predict(self, batch: dict[str, Any], rows: slice) -> tuple[np.ndarray, np.ndarray]:
        """Return the energies (nf) and forces (nf x nloc x 3) of some frames of a batch."""
        torch: Any = importlib.import_module("torch")
        device = next(self.model.parameters()).device
        inputs: dict[str, Any] = {}
        for key in INPUTS:
            given = batch.get(key) is not None and float(batch.get(f"find_{key}", 1.0))
            inputs[key] = batch[key][rows].to(device) if given else None
        training = self.model.training
        self.model.eval()
        try:
            with torch.random.fork_rng():
                found = self.model(**inputs)
        finally:
            self.model.train(training)
        energy, force = (found[name].detach().cpu().numpy() for name in ("energy", "force"))
        return energy.reshape(-1), force.reshape(len(energy), -1, 3)


def look_at_inherited_heads(look: Callable[[Inherited], None]) -> None:
    """Have the force-field heads that trainings from here on inherit looked at.

    Parameters
    ----------
    look : callable
        Called for each of them, in the first process, before the first step of a fine-tuning (not
        at a restart, which takes no head over). Sharded parameters are not looked at.
    """
    module: Any = importlib.import_module("deepmd.pt.train.training")
    change, run = module.model_change_out_bias, module.Trainer.run
    shifts: dict[int, np.ndarray] = {}

    @functools.wraps(change)
    def change_and_note(model: Any, *args: Any, **kwargs: Any) -> Any:
        before = model.get_out_bias().detach().clone()
        changed = change(model, *args, **kwargs)
        shift = changed.get_out_bias() - before
        shifts[id(changed)] = shift[0, :, 0].detach().cpu().numpy().astype(float)
        return changed

    @functools.wraps(run)
    def look_and_run(self: Any) -> None:
        whole = not self.sharding.shards_parameters
        if self.rank == 0 and self.finetune_links is not None and whole:
            for one in _inherited(self, shifts):
                look(one)
        run(self)

    module.model_change_out_bias = change_and_note
    module.Trainer.run = look_and_run


def _inherited(trainer: Any, shifts: dict[int, np.ndarray]) -> Iterator[Inherited]:
    models = trainer._get_inner_module().model
    for name in trainer.model_keys:
        rule, model = trainer.finetune_links[name], models[name]
        kinds = model.model_output_type()
        # a model of spins asks for them, and has a force on each
        if rule.get_random_fitting() or "energy" not in kinds or model.has_spin():
            continue
        sample = trainer.get_sample_func
        yield Inherited(
            name if trainer.multi_task else "",
            rule.get_model_branch(),
            model,
            sample[name] if trainer.multi_task else sample,
            shifts.get(id(model)),
        )
