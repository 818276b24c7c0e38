"""Load a model, checkpoint or frozen, and predict with it.

The numbers are those of ``dp --pt test``. It is quicker because each core has a batch of its own,
padding is cut off, structures of one size go together, nothing is kept for a gradient that nobody
asks for, and TorchScript does not spend the first batches on specialising itself.
"""

from __future__ import annotations

import json
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from deepmd_mft.bridge.models import load_frozen, load_model, no_jit_warm_up, rebuild
from deepmd_mft.checkpoints.branch import (
    branches_of,
    choose_branch,
    head_type,
    is_force_field,
    is_property,
    main_branches,
    property_columns,
)
from deepmd_mft.checkpoints.file import branch_weights, read_model_params, read_state
from deepmd_mft.errors import UserError
from deepmd_mft.inference.network import Network

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from deepmd_mft.bridge.neighbours import NeighbourLists
    from deepmd_mft.inference.network import Seen
    from deepmd_mft.structures.batches import Batch

#: Atoms from which on it pays to prepare a frozen model, which takes one to three seconds.
MANY_ATOMS = 50_000


@dataclass(frozen=True)
class Output:
    """One quantity that a model predicts.

    Attributes
    ----------
    name : str
        Name of the property, of its label files and of the model's output.
    columns : int
        Columns of the output.
    num_classes : int or None
        Number of classes if the outputs are logits.
    per_atom : bool
        One row per atom instead of one per structure.
    """

    name: str
    columns: int
    num_classes: int | None = None
    per_atom: bool = False

    @property
    def label_columns(self) -> int:
        """Columns of the label file."""
        return 1 if self.num_classes else self.columns


#: What a force field predicts: eV, eV/Angstrom and eV, as in deepmd-kit's data.
FORCE_FIELD = (Output("energy", 1), Output("force", 3, per_atom=True), Output("virial", 9))


class Predictor(Network):
    """A loaded model that predicts.

    Parameters
    ----------
    model : torch.nn.Module
        In evaluation mode; scripted if it came from a ``.pth``.
    params : dict
        The JSON of its branch.
    branch : str
        Its name; empty for a single-task model.
    path : Path
        For messages.

    Attributes
    ----------
    outputs : list of Output
        The properties, or energy, force and virial.
    is_force_field : bool
        Whether it predicts energy, force and virial.
    """

    def __init__(self, model: Any, params: dict[str, Any], branch: str, path: Path) -> None:
        super().__init__(model)
        self.params = params
        self.branch = branch
        self.path = path
        self.is_force_field = is_force_field(params)
        self.outputs = _outputs(params, model)
        if model.get_dim_aparam():
            raise UserError(
                f"{path} takes atomic parameters (aparam), which dp-mft evaluate does not read; "
                "use `dp --pt test`"
            )

    @classmethod
    def load(cls, path: Path, branch: str | None = None) -> Predictor:
        """Load a ``.pt`` checkpoint (with its branch) or a frozen ``.pth``.

        Parameters
        ----------
        path : Path
        branch : str, optional
            Branch or alias of a multi-task checkpoint; the main property branch if left out (see
            :func:`~deepmd_mft.checkpoints.branch.main_branches`), or the only branch.

        Raises
        ------
        UserError
            If the file is no model, is cut off, has no such branch, or one whose head is neither
            a property's nor an energy's.
        """
        if path.suffix == ".pth":
            return cls._load_frozen(path)  # a frozen model is one branch
        params = read_model_params(path)
        name = choose_branch(params, path, branch, _properties_first)
        chosen = branches_of(params)[name]
        _check_head(path, name, chosen)
        from deepmd_mft.backbones.switch import speed_up_models  # noqa: PLC0415  (slow to import)

        model = load_model(str(path), name or None)
        speed_up_models([model])
        return cls(model, chosen, name, path)

    @classmethod
    def _load_frozen(cls, path: Path) -> Predictor:
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
        _check_head(path, "", params)
        return cls(model, params, "", path)

    def load_weights(self, state: Path | dict[str, Any]) -> None:
        """Put the weights of a checkpoint of the same run into this model.

        Parameters
        ----------
        state : Path or dict
            The checkpoint, or weights named as :func:`~deepmd_mft.checkpoints.file.read_state`
            names them.

        Raises
        ------
        UserError
            If they are those of another network.
        """
        whole = state if isinstance(state, dict) else read_state(state)
        try:
            self.model.load_state_dict(branch_weights(whole, self.branch, self.path))
        except RuntimeError as error:
            raise UserError(f"weights do not fit the model of {self.path}: {error}") from None

    @property
    def variances(self) -> list[Output]:
        """The outputs of a variance head; none without one."""
        if not (self.params.get("fitting_net") or {}).get("predict_variance"):
            return []
        return [Output(f"{one.name}_variance", one.columns) for one in self.outputs]

    def predict(
        self,
        batches: list[Batch],
        advance: Callable[[int], object] | None = None,
        neighbours: NeighbourLists | None = None,
        *,
        variances: bool = False,
    ) -> dict[str, np.ndarray]:
        """Predict every structure.

        Parameters
        ----------
        batches : list of Batch
            Of one set, made by :meth:`batches`.
        advance : callable, optional
            Called with the number of structures done, for a progress bar.
        neighbours : NeighbourLists, optional
            Remembers the neighbour lists of the batches; for property models that are not frozen.
        variances : bool
            Also those of a variance head, as ``NAME_variance``.

        Returns
        -------
        dict of str to np.ndarray
            nframes x columns for each output; for one per atom (force) natoms x columns, the atoms
            of all structures in the order of the set. NaN for what the model does not give.
        """
        places = _Places(batches)
        outputs = [*self.outputs, *(self.variances if variances else [])]
        found = {o.name: np.full((places.length(o), o.columns), np.nan) for o in outputs}
        model = self.model
        if places.natoms.sum() >= MANY_ATOMS:
            model = self._quicker
        gradient = nullcontext if self.is_force_field else torch.no_grad

        def forward(number: int) -> dict[str, np.ndarray]:
            if neighbours is not None:
                neighbours.choose(number)
            with gradient(), no_jit_warm_up():  # both hold for one thread only
                output = model(*self.inputs(batches[number]))
            return {k: output[k].detach().cpu().numpy() for k in found if k in output}

        remembering = neighbours.kept() if neighbours is not None else nullcontext()
        with remembering:
            for batch, result in zip(batches, self.each(batches, forward), strict=True):
                for output in outputs:
                    if output.name in result:
                        values = result[output.name].reshape(-1, output.columns)
                        found[output.name][places.of(batch, output)] = values
                if advance:
                    advance(len(batch.rows))
        return found

    def represent(
        self,
        batches: list[Batch],
        what: Literal["descriptor", "last_layer"] = "descriptor",
        advance: Callable[[int], object] | None = None,
    ) -> np.ndarray:
        """Return a representation of every structure: the mean over its atoms.

        Parameters
        ----------
        batches : list of Batch
            Of one set, made by :meth:`batches`.
        what : {"descriptor", "last_layer"}
            The descriptor's output, or the last hidden layer of the fitting net.
        advance : callable, optional
            Called with the number of structures done, for a progress bar.

        Returns
        -------
        np.ndarray
            nframes x width.

        Raises
        ------
        UserError
            If the model has no such representation.
        """

        def pooled(seen: Seen) -> np.ndarray:
            values = seen.node if what == "descriptor" else seen.last_layer
            return np.asarray(values.mean(dim=1).cpu().numpy())

        parts: list[np.ndarray] = []
        try:
            for batch, part in zip(batches, self.look(batches, pooled), strict=True):
                parts.append(part)
                if advance:
                    advance(len(batch.rows))
        except (AttributeError, KeyError, NotImplementedError):
            raise UserError(
                f"{self.path} has no {what.replace('_', ' ')} to look into; frozen with an older "
                "deepmd-kit, or combined of several models?"
            ) from None
        found = np.empty((sum(map(len, parts)), parts[0].shape[1]))
        for batch, part in zip(batches, parts, strict=True):
            found[batch.rows] = part
        return found

    @cached_property
    def _quicker(self) -> Any:
        """The same model in the form that is quickest for many structures.

        A frozen DPA-3 is built anew from its JSON and weights, to be sped up as in training (half
        of the time). Other frozen models lose what no property depends on.
        """
        if not isinstance(self.model, torch.jit.ScriptModule):
            return self.model
        if (self.params.get("descriptor") or {}).get("type") == "dpa3":
            from deepmd_mft.backbones.switch import speed_up_models, why_not  # noqa: PLC0415

            with suppress(RuntimeError):  # frozen by a deepmd-kit with other parameters
                model = rebuild(self.model)
                if not why_not(model.get_descriptor()):
                    speed_up_models([model])
                    return model.requires_grad_(requires_grad=False)
        return self.model if self.is_force_field else torch.jit.freeze(self.model)


class _Places:
    """Where the structures of batches, and their atoms, stand in the arrays of the whole set."""

    def __init__(self, batches: list[Batch]) -> None:
        self.natoms = np.zeros(sum(len(batch.rows) for batch in batches), dtype=int)
        for batch in batches:
            self.natoms[batch.rows] = batch.atype.shape[1]
        self.starts = np.cumsum(self.natoms) - self.natoms

    def length(self, output: Output) -> int:
        """Return the number of rows of an output."""
        return int(self.natoms.sum()) if output.per_atom else len(self.natoms)

    def of(self, batch: Batch, output: Output) -> np.ndarray:
        """Return the rows of a batch in an output."""
        if not output.per_atom:
            return batch.rows
        return (self.starts[batch.rows][:, None] + np.arange(batch.atype.shape[1])).ravel()


def _properties_first(branches: dict[str, dict[str, Any]]) -> list[str]:
    """Return the main property branch, or those that may be it, or all if there are none."""
    return main_branches(branches) or list(branches)


def _check_head(path: Path, name: str, branch_params: dict[str, Any]) -> None:
    where = f"branch '{name}' of {path}" if name else str(path)
    if not (is_property(branch_params) or is_force_field(branch_params)):
        raise UserError(
            f"{where} has a fitting net of type '{head_type(branch_params)}'; properties, classes, "
            "energies and forces are predicted here, for others use `dp --pt test`"
        )
    if branch_params.get("spin"):
        raise UserError(f"{where} is a model with spin; use `dp --pt test`")


def _outputs(params: dict[str, Any], model: Any) -> list[Output]:
    if is_force_field(params):
        return list(FORCE_FIELD)
    net = params["fitting_net"]
    columns = property_columns(params)
    if len(columns) == 1:  # the model knows how many logits or components
        (name,) = columns
        classes = (
            int(net.get("num_classes", 2)) if head_type(params) == "mft_classification" else None
        )
        return [Output(name, int(model.get_task_dim()), classes)]
    return [Output(name, dim) for name, dim in columns.items()]
