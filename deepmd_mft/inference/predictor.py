"""Load a model, checkpoint or frozen, and predict its properties.

The numbers are those of ``dp --pt test``. It is quicker because each core has a batch of its own
(operators on small tensors share cores badly), padding is cut off, structures of one size go
together, nothing is kept for a gradient, and TorchScript does not spend the first batches on
specialising itself.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from deepmd.utils.model_branch_dict import get_model_dict

from deepmd_mft.bridge.models import load_frozen, load_model, no_jit_warm_up
from deepmd_mft.checkpoints.branch import head_type, is_property, property_columns
from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from deepmd_mft.bridge.neighbours import NeighbourLists
    from deepmd_mft.structures.structure_set import Batch, StructureSet

#: Atoms from which on it pays to prepare a scripted model, which takes one to three seconds.
MANY_ATOMS = 50_000
#: Batches at a time: models that are not frozen hold Python's lock for a tenth of the time.
MOST_WORKERS = 8
PROPERTY_HEADS = "mft_property, mft_spatial_extent, mft_dipole_norm, mft_classification, property"


@dataclass(frozen=True)
class Output:
    """One property that a model predicts.

    Attributes
    ----------
    name : str
        Name of the property, of its label files and of the model's output.
    columns : int
        Columns of the output.
    num_classes : int or None
        Number of classes if the outputs are logits.
    """

    name: str
    columns: int
    num_classes: int | None = None

    @property
    def label_columns(self) -> int:
        """Columns of the label file."""
        return 1 if self.num_classes else self.columns


@dataclass(frozen=True)
class ModelFile:
    """A model as given on the command line: ``[NAME=]FILE[:HEAD]``."""

    name: str
    path: Path
    head: str | None = None

    @classmethod
    def parse(cls, text: str, head: str | None = None) -> ModelFile:
        """Split the text; the name is that of the folder and file if left out.

        Raises
        ------
        UserError
            If there is no such file.
        """
        name, equals, rest = text.partition("=")
        if not equals or "/" in name or Path(text).exists():
            name, rest = "", text
        path, colon, branch = rest.rpartition(":")
        if not colon or Path(rest).exists():
            path, branch = rest, ""
        found = Path(path)
        if found.is_dir():
            found = best_model(found)
        if not found.is_file():
            raise UserError(
                f"model {found} does not exist; write a model as [NAME=]FILE[:HEAD], or a folder "
                "that `dp-mft select` has been through"
            )
        parent = found.absolute().parent.name
        return cls(name or f"{parent}/{found.name}", found, branch or head)


def best_model(run: Path) -> Path:
    """Return the model of a run: the selected checkpoint, else the frozen model, else the last.

    Raises
    ------
    UserError
        If the folder has none.
    """
    frozen = sorted(run.glob("*.pth"))
    for path in (run / "model.best.pt", *frozen[:1], run / "model.ckpt.pt"):
        if path.is_file():
            return path
    raise UserError(
        f"{run} has no model (model.best.pt, *.pth or model.ckpt.pt): train first, then "
        f"`dp-mft select {run}`"
    )


class Predictor:
    """A loaded model.

    Parameters
    ----------
    model : torch.nn.Module
        In evaluation mode; scripted if it came from a ``.pth``.
    params : dict
        The model's JSON.
    head : str
        Its branch; empty for a single-task model.
    path : Path
        For messages.
    """

    def __init__(self, model: Any, params: dict[str, Any], head: str, path: Path) -> None:
        self.model = model
        self.device = next(iter(model.parameters())).device
        self.params = params
        self.head = head
        self.path = path
        self.type_map = list(model.get_type_map())
        self.outputs = _outputs(params, model)
        self.dim_fparam = int(model.get_dim_fparam())
        if model.get_dim_aparam():
            raise UserError(
                f"{path} takes atomic parameters (aparam), which dp-mft evaluate does not read; "
                "use `dp --pt test`"
            )

    @classmethod
    def load(cls, path: Path, head: str | None = None) -> Predictor:
        """Load a ``.pt`` checkpoint (with its head) or a frozen ``.pth``.

        Parameters
        ----------
        path : Path
        head : str, optional
            Branch or alias of a multi-task checkpoint; the only property branch if left out.

        Raises
        ------
        UserError
            If the file is no model, is cut off, or has no such property head.
        """
        if path.suffix == ".pth":
            return cls._load_frozen(path, head)
        from deepmd_mft.checkpoints.file import read_model_params  # noqa: PLC0415  (slow to import)

        params = read_model_params(path)
        if "model_dict" in params:
            head = property_branch(params["model_dict"], path, head)
            branch = params["model_dict"][head]
        else:
            branch = params
            if not is_property(branch):
                raise UserError(_no_property(path, {"the model": branch}))
            head = ""
        return cls(load_model(str(path), head or None), branch, head, path)

    @classmethod
    def _load_frozen(cls, path: Path, head: str | None) -> Predictor:
        if not path.is_file():
            raise UserError(f"model {path} does not exist")
        try:
            model = load_frozen(str(path))
            params = json.loads(model.get_model_def_script() or "{}")
        except (RuntimeError, AttributeError, ValueError) as error:
            raise UserError(
                f"{path} is not a frozen model of `dp --pt freeze` ({type(error).__name__}); "
                "freeze it again"
            ) from None
        if not is_property(params):
            raise UserError(_no_property(path, {"the frozen model": params}))
        del head  # a frozen model is one branch
        return cls(model, params, "", path)

    def batches(self, structures: StructureSet) -> list[Batch]:
        """Return the structures of a set in batches for this model."""
        return structures.batches(self.type_map, self.dim_fparam)

    def load_weights(self, path: Path) -> None:
        """Put the weights of another checkpoint of the same run into this model."""
        self.load_state(branch_state(path, self.head))

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Put weights, named as in :func:`branch_state`, into this model.

        Raises
        ------
        UserError
            If they are those of another network.
        """
        try:
            self.model.load_state_dict(state)
        except RuntimeError as error:
            raise UserError(f"weights do not fit the model of {self.path}: {error}") from None

    def predict(
        self,
        batches: list[Batch],
        advance: Callable[[int], object] | None = None,
        neighbours: NeighbourLists | None = None,
    ) -> dict[str, np.ndarray]:
        """Predict every structure.

        Parameters
        ----------
        batches : list of Batch
            Of one set, made by :meth:`batches`.
        advance : callable, optional
            Called with the number of structures done, for a progress bar.
        neighbours : NeighbourLists, optional
            Remembers the neighbour lists of the batches; for models that are not frozen.

        Returns
        -------
        dict of str to np.ndarray
            nframes x columns for each property.
        """
        nframes = sum(len(batch.rows) for batch in batches)
        found = {o.name: np.full((nframes, o.columns), np.nan) for o in self.outputs}
        device, model = self.device, self.model
        if sum(batch.atype.numel() for batch in batches) >= MANY_ATOMS:
            model = self._without_unused_parts

        def forward(number: int) -> dict[str, np.ndarray]:
            batch = batches[number]
            if neighbours is not None:
                neighbours.choose(number)
            with torch.no_grad(), no_jit_warm_up():  # both hold for one thread only
                output = model(
                    batch.coord.to(device),
                    batch.atype.to(device),
                    None if batch.box is None else batch.box.to(device),
                    None if batch.fparam is None else batch.fparam.to(device),
                )
                return {name: output[name].cpu().numpy() for name in found}

        remembering = neighbours.kept() if neighbours is not None else nullcontext()
        with remembering, _workers(device) as pool:
            outputs = pool.map(forward, range(len(batches)))
            for batch, output in zip(batches, outputs, strict=True):
                for name, values in found.items():
                    values[batch.rows] = output[name]
                if advance:
                    advance(len(batch.rows))
        return found

    @cached_property
    def _without_unused_parts(self) -> Any:
        """The model without what no output depends on, if it is scripted.

        That is a fifth to a third of a small DPA-3: the last layer's edges and angles.
        """
        if not isinstance(self.model, torch.jit.ScriptModule):
            return self.model
        return torch.jit.freeze(self.model)


@contextmanager
def _workers(device: torch.device) -> Iterator[ThreadPoolExecutor]:
    """Return a pool of threads, among which the cores that torch may use are divided."""
    cores = torch.get_num_threads()
    workers = min(cores, MOST_WORKERS) if device.type == "cpu" else 1
    torch.set_num_threads(cores // workers)  # holds for threads that start from here on
    # glibc returns blocks above a threshold to the system at once, and the next operator faults
    # them in anew: a tenth of the time. Freeing a larger block raises the threshold (to 32 MiB).
    torch.empty(31 * 2**20, dtype=torch.uint8)
    pool = ThreadPoolExecutor(workers)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt does not wait for the batches to come
        torch.set_num_threads(cores)


def branch_state(path: Path, head: str) -> dict[str, torch.Tensor]:
    """Return the weights of one branch of a checkpoint, named as in the branch's model.

    Raises
    ------
    UserError
        If the file cannot be read, or lacks the branch.
    """
    from deepmd_mft.checkpoints.file import read_state  # noqa: PLC0415  (slow to import)

    state = read_state(path)
    prefix = f"model.{head or 'Default'}."
    found = {
        key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)
    }
    if not found:
        raise UserError(f"{path} has no weights of branch '{head or 'Default'}'")
    return found


def property_branch(branches: dict[str, Any], path: Path, head: str | None) -> str:
    """Return the name of the property branch that is meant.

    Raises
    ------
    UserError
        If there is none, several, or the named one is missing or another kind.
    """
    aliases = get_model_dict(branches)[0]
    if head is not None:
        if head not in aliases:
            raise UserError(
                f"{path} has no head '{head}'; it has {', '.join(branches)}. Choose with --head"
            )
        if not is_property(branches[aliases[head]]):
            raise UserError(_no_property(path, {head: branches[aliases[head]]}))
        return str(aliases[head])
    found = [name for name, branch in branches.items() if is_property(branch)]
    if not found:
        raise UserError(_no_property(path, branches))
    if len(found) > 1:
        raise UserError(
            f"{path} has several property heads: {', '.join(found)}; choose with --head"
        )
    return found[0]


def _no_property(path: Path, branches: dict[str, Any]) -> str:
    kinds = ", ".join(f"{name}: {head_type(branch)}" for name, branch in branches.items())
    return (
        f"{path} has no property head ({kinds}; needed is one of {PROPERTY_HEADS}). A pretrained "
        "checkpoint gets one by fine-tuning; for energies and forces use `dp --pt test`"
    )


def _outputs(params: dict[str, Any], model: Any) -> list[Output]:
    net = params["fitting_net"]
    columns = property_columns(params)
    if len(columns) == 1:  # the model knows how many logits or components
        (name,) = columns
        classes = int(net.get("num_classes", 2)) if net["type"] == "mft_classification" else None
        return [Output(name, int(model.get_task_dim()), classes)]
    return [Output(name, dim) for name, dim in columns.items()]
