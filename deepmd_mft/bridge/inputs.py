"""What deepmd-kit makes of an input: the filled-in JSON, its batches, steps and shares.

Each function calls what ``dp --pt train`` calls itself, so that nothing is derived a second time.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator


def normalise(config: dict[str, Any]) -> dict[str, Any]:
    """Return an input with shared entries resolved and every default filled in.

    Parameters
    ----------
    config : dict
        The JSON as the user wrote it, of any version that deepmd-kit reads; not changed.

    Raises
    ------
    dargs.dargs.ArgumentError, ValueError, AssertionError, ...
        As deepmd-kit raises them on an input that does not fit its schema.
    """
    importlib.import_module("deepmd.pt")  # loads the plugins, whose types the schema then knows
    argcheck = importlib.import_module("deepmd.utils.argcheck")
    compat = importlib.import_module("deepmd.utils.compat")
    config = copy.deepcopy(config)
    multi_task = "model_dict" in config["model"]
    if multi_task:
        config["model"] = resolve_shared(config["model"])
    updated = compat.update_deepmd_input(config, warning=False)
    return dict(argcheck.normalize(updated, multi_task=multi_task))


def resolve_shared(model: dict[str, Any]) -> dict[str, Any]:
    """Return a multi-task model with the names of ``shared_dict`` replaced by its entries.

    One whose branches hold everything themselves, as in ``out.json``, is returned as it is.

    Raises
    ------
    AssertionError
        If a name is not in ``shared_dict``, or the branches do not share one type map.
    """
    multi_task = importlib.import_module("deepmd.pt.utils.multi_task")
    keys = ("type_map", "descriptor", "fitting_net")
    branches = model["model_dict"].values()
    if not any(isinstance(branch.get(key), str) for branch in branches for key in keys):
        return model
    return dict(multi_task.preprocess_shared_params(copy.deepcopy(model))[0])


def take_pretrained_model(
    config: dict[str, Any], pretrained: dict[str, Any], branch: str, *, finetune: bool
) -> dict[str, Any]:
    """Return the input whose model ``--use-pretrain-script`` takes from a checkpoint.

    Parameters
    ----------
    config : dict
        The input, not normalised.
    pretrained : dict
        ``model_params`` of the checkpoint.
    branch : str
        ``--model-branch``.
    finetune : bool
        For ``--finetune``; else for ``--init-model``, which takes the whole model.

    Raises
    ------
    ValueError
        If the checkpoint lacks what the input asks for.
    """
    rules = importlib.import_module("deepmd.utils.finetune")
    model = config["model"]
    if not finetune:
        return {**config, "model": pretrained}
    if "model_dict" in model:
        model = resolve_shared(model)
    with quiet():
        model, _ = rules.get_finetune_rules_from_model_params(
            pretrained, model, model_branch=branch, change_model_params=True
        )
    return {**config, "model": model}


def own_options(model: dict[str, Any]) -> dict[str, Any]:
    """Return what makes a branch of a checkpoint what it is, beside descriptor and fitting net.

    Parameters
    ----------
    model : dict
        The branch's model, normalised.

    Returns
    -------
    dict
        Its ``type`` if it is no standard model, and options that differ from their defaults.
    """
    importlib.import_module("deepmd.pt")
    argcheck = importlib.import_module("deepmd.utils.argcheck")
    needed = ("type", "type_map", "descriptor", "fitting_net")
    bare = {key: copy.deepcopy(model[key]) for key in needed if key in model}
    defaults = argcheck.model_args().normalize_value(bare, trim_pattern="_*")
    apart = {"type_map", "descriptor", "fitting_net", "finetune_head", "info", "model_branch_alias"}
    kind = model.get("type", "standard")
    return {
        **({} if kind == "standard" else {"type": kind}),
        **{
            key: value
            for key, value in model.items()
            if key in defaults and key not in apart and value != defaults[key]
        },
    }


def build_model(model: dict[str, Any]) -> None:
    """Build the model of a branch as the trainer would, and forget it.

    Raises
    ------
    Exception
        Whatever ends the training there.
    """
    models = importlib.import_module("deepmd.pt.model.model")
    with quiet():
        models.get_model(copy.deepcopy(model))


@dataclass(frozen=True)
class Batches:
    """How deepmd-kit batches the training or validation data of a branch.

    Attributes
    ----------
    size : float
        Frames in a batch, averaged over systems as they are drawn.
    frames : float
        Mean number of frames that a step sees: less than ``size`` where a last batch is not full.
    """

    size: float
    frames: float


class TrainingData:
    """The data set that ``dp --pt train`` would make of a part of the input.

    Close it after use: an LMDB can be open only once in a process.

    Parameters
    ----------
    part : dict
        ``training_data`` or ``validation_data``, normalised.
    systems : list of str
        Its systems; one LMDB, or the folders of npy systems.
    type_map : list of str
        Elements of the model.

    Raises
    ------
    ValueError, AssertionError, RuntimeError, OSError
        As deepmd-kit raises them.
    """

    def __init__(self, part: dict[str, Any], systems: list[str], type_map: list[str]) -> None:
        lmdb_dataset = importlib.import_module("deepmd.pt.utils.lmdb_dataset")
        loading = importlib.import_module("deepmd.pt.utils.dataloader")
        self._lmdb = len(systems) == 1 and lmdb_dataset.is_lmdb(systems[0])
        with quiet():
            if self._lmdb:
                self.data: Any = lmdb_dataset.LmdbDataset(
                    systems[0],
                    type_map,
                    part["batch_size"],
                    auto_prob_style=part.get("auto_prob"),
                )
                self.weights = np.ones(1)
            else:
                self.data = loading.DpLoaderSet(systems, part["batch_size"], type_map)
                sampler = loading.get_sampler_from_params(self.data, part)
                self.weights = sampler.weights.cpu().numpy()

    def epoch(self) -> int:
        """Return the batches of an epoch, as the trainer counts them."""
        if self._lmdb:
            return int(self.data.total_batch)
        utils = importlib.import_module("deepmd.dpmodel.utils.training_utils")
        return int(utils.compute_total_numb_batch(self.data.index, self.weights))

    def batches(self) -> Batches:
        """Return how many frames a batch has."""
        if self._lmdb:
            frames = len(self.data) / max(self.data.total_batch, 1)
            return Batches(frames, frames)
        share = self.weights / self.weights.sum()
        frames = np.array([len(system) for system in self.data.systems])
        size = np.minimum(np.asarray(self.data.batch_sizes), frames)
        mean = frames / np.maximum(self.data.index, 1)
        return Batches(float(share @ size), float(share @ mean))

    def close(self) -> None:
        """Let go of an LMDB."""
        if self._lmdb:
            self.data.close()


def plan_steps(
    training: dict[str, Any], data: dict[str, TrainingData], *, multi_task: bool
) -> tuple[int, dict[str, float]]:
    """Return the number of steps, and the share of them that each branch gets.

    Parameters
    ----------
    training : dict
        The section ``training``, normalised.
    data : dict
        Training data of every branch.
    multi_task : bool
        Whether the input has a ``model_dict``.

    Raises
    ------
    ValueError
        If steps or shares are missing, contradict each other, or leave a branch out.
    """
    schedule = importlib.import_module("deepmd.dpmodel.train.schedule")
    with quiet():
        found = schedule.resolve_step_schedule(
            training,
            multi_task=multi_task,
            model_keys=list(data),
            training_data={name: one.data for name, one in data.items()},
            epoch_length=lambda name: data[name].epoch(),
        )
    shares = [1.0] if found.model_prob is None else found.model_prob
    return found.num_steps, dict(zip(data, map(float, shares), strict=True))


def build_learning_rate(learning_rate: dict[str, Any], steps: int) -> Any:
    """Build the learning-rate schedule of a training.

    Raises
    ------
    ValueError
        If it does not go with the number of steps, for instance a warm-up that is longer.
    """
    lr = importlib.import_module("deepmd.pt.utils.learning_rate")
    return lr.BaseLR(**{**learning_rate, "num_steps": steps})


def label_requirement(loss: dict[str, Any]) -> list[Any]:
    """Return the labels that a loss of energies and forces learns from.

    Parameters
    ----------
    loss : dict
        Its JSON, normalised; a type that needs no model to be built.

    Returns
    -------
    list of deepmd.utils.data.DataRequirementItem
        Without those that have a default.
    """
    training = importlib.import_module("deepmd.pt.train.training")
    built = training.get_loss(copy.deepcopy(loss), 1.0, 0, None)
    return [item for item in built.label_requirement if item.source_policy != "default"]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep back what deepmd-kit logs; the training itself says it again."""
    deepmd = logging.getLogger("deepmd")
    level = deepmd.level
    deepmd.setLevel(logging.ERROR)
    try:
        yield
    finally:
        deepmd.setLevel(level)
