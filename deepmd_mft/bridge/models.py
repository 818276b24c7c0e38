"""Building and loading models as deepmd-kit does."""

from __future__ import annotations

import copy
import importlib
import json
from typing import TYPE_CHECKING, Any

from deepmd_mft.structures.cells import right_handed
from deepmd_mft.structures.elements import atomic_number

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Of the statistics of a descriptor: types, neighbours, components.
STATISTICS_AXES = 3


def build_descriptor(descriptor_params: dict[str, Any], type_map: list[str]) -> Any:
    """Build the descriptor of a branch as deepmd-kit builds it for its own models.

    Parameters
    ----------
    descriptor_params : dict
        The normalised JSON of the descriptor.
    type_map : list of str
        Elements of the branch.

    Returns
    -------
    torch.nn.Module
    """
    descriptor = importlib.import_module("deepmd.pt.model.descriptor.base_descriptor")
    params = {**descriptor_params, "ntypes": len(type_map), "type_map": list(type_map)}
    return descriptor.BaseDescriptor(**params)


def descriptor_outputs(
    descriptor_params: dict[str, Any],
    type_map: list[str],
    frames: list[Any],
    state: dict[str, Any] | None = None,
) -> list[Any]:
    """Return the descriptor of frames, computed by deepmd-kit's own code.

    Parameters
    ----------
    descriptor_params : dict
        The JSON of the descriptor.
    type_map : list of str
        Elements of the branch.
    frames : list of tuple
        Atomic numbers, positions (in Angstrom) and cell (or None) of each.
    state : dict of str to torch.Tensor, optional
        Its weights; random ones, always the same, by default. Statistics of neighbours, the same
        for all, are made as many as the selection has.

    Returns
    -------
    list of torch.Tensor
        nloc x dim for each frame.
    """
    torch: Any = importlib.import_module("torch")
    nlist: Any = importlib.import_module("deepmd.pt.utils.nlist")
    env: Any = importlib.import_module("deepmd.pt.utils.env")
    descriptor = build_descriptor({**descriptor_params, "seed": 1}, type_map).to(env.DEVICE).eval()
    if state is not None:
        own = descriptor.state_dict()
        state = {
            name: value[:, :1].expand_as(own[name]) if value.dim() == STATISTICS_AXES else value
            for name, value in state.items()
        }
        descriptor.load_state_dict(state)
    numbers = {atomic_number(symbol): index for index, symbol in enumerate(type_map)}
    outputs = []
    for z, positions, cell in frames:
        coord = torch.as_tensor(positions, dtype=torch.float64, device=env.DEVICE).reshape(1, -1, 3)
        atype = torch.tensor([[numbers[int(one)] for one in z]], device=env.DEVICE)
        box = None
        if cell is not None:
            box = torch.as_tensor(right_handed(cell), device=env.DEVICE).reshape(1, 9)
        extended, types, mapping, neighbours = nlist.extend_input_and_build_neighbor_list(
            coord, atype, descriptor.get_rcut(), descriptor.get_sel(), True, box
        )
        with torch.no_grad():
            outputs.append(descriptor(extended, types, neighbours, mapping)[0][0])
    return outputs


def build_model(model_params: dict[str, Any], state: dict[str, Any]) -> Any:
    """Build the model of a branch as deepmd-kit does, with weights.

    Parameters
    ----------
    model_params : dict
        The normalised JSON of the branch.
    state : dict of str to torch.Tensor
        Its weights, named as in the model.

    Returns
    -------
    torch.nn.Module
        In evaluation mode.
    """
    importlib.import_module("deepmd.pt")  # loads the plugins, whose types the JSON may name
    models: Any = importlib.import_module("deepmd.pt.model.model")
    env: Any = importlib.import_module("deepmd.pt.utils.env")
    model = models.get_model(copy.deepcopy(model_params)).to(env.DEVICE)
    model.load_state_dict(state)
    return model.eval()


def change_types(model: Any, type_map: list[str]) -> dict[str, Any]:
    """Give a model another type map, by deepmd-kit's own means, and return its weights then.

    Parameters
    ----------
    model : torch.nn.Module
        Of :func:`build_model`; changed in place.
    type_map : list of str
        Elements, some or all of the model's.

    Raises
    ------
    NotImplementedError
        If deepmd-kit cannot do it for a part of the model.
    """
    try:
        model.change_type_map(list(type_map))
    except AssertionError as error:
        raise NotImplementedError(str(error)) from None
    return dict(model.state_dict())


def with_type_map(
    model_params: dict[str, Any], state: dict[str, Any], type_map: Sequence[str]
) -> dict[str, Any]:
    """Return the weights of a branch for another type map, leaving random numbers alone.

    Parameters
    ----------
    model_params : dict
        The normalised JSON of the branch.
    state : dict of str to torch.Tensor
        Its weights, named as in the model.
    type_map : sequence of str
        Elements, some or all of the branch's.

    Raises
    ------
    NotImplementedError
        As :func:`change_types`.
    """
    torch: Any = importlib.import_module("torch")
    with torch.random.fork_rng():
        return change_types(build_model(model_params, state), list(type_map))


def types_among(old: list[str], new: list[str], excluded: list[Any]) -> list[Any]:
    """Return excluded types, or pairs of them, as numbers in another type map; others are left out.

    Parameters
    ----------
    old, new : list of str
        Type maps.
    excluded : list of int, or of pairs of int
        Numbers in the old one.
    """
    finetune: Any = importlib.import_module("deepmd.utils.finetune")
    index, _ = finetune.get_index_between_two_maps(old, new)
    if excluded and isinstance(excluded[0], int):
        return list(finetune.map_atom_exclude_types(excluded, index))
    return [list(pair) for pair in finetune.map_pair_exclude_types(excluded, index)]


def molecule_outputs(model: Any, symbols: list[str], positions: Any) -> dict[str, Any]:
    """Return everything that a model gives for a molecule.

    Parameters
    ----------
    model : torch.nn.Module
        Of :func:`build_model`.
    symbols : list of str
        Of its atoms.
    positions : np.ndarray
        natoms x 3, in Angstrom. Frame and atomic parameters are 0.1 where the model takes any.

    Returns
    -------
    dict of str to torch.Tensor
    """
    torch: Any = importlib.import_module("torch")
    env: Any = importlib.import_module("deepmd.pt.utils.env")
    types = list(model.get_type_map())
    atype = torch.tensor([[types.index(one) for one in symbols]], device=env.DEVICE)
    coord = torch.as_tensor(positions, dtype=torch.float64, device=env.DEVICE).reshape(1, -1)

    def parameters(*shape: int) -> Any:
        return torch.full(shape, 0.1, dtype=torch.float64, device=env.DEVICE) if shape[-1] else None

    output = model(
        coord,
        atype,
        fparam=parameters(1, model.get_dim_fparam()),
        aparam=parameters(1, len(symbols), model.get_dim_aparam()),
    )
    return {name: value.detach() for name, value in output.items()}


def load_model(path: str, branch: str | None) -> Any:
    """Load one branch of a checkpoint as DeepEval does, but not compiled.

    Parameters
    ----------
    path : str
        A ``.pt`` checkpoint.
    branch : str or None
        A branch of a multi-task checkpoint.

    Returns
    -------
    torch.nn.Module
        The branch's model in evaluation mode.
    """
    deep_eval = importlib.import_module("deepmd.pt.infer.deep_eval")
    evaluator = deep_eval.DeepEval(path, None, head=branch, no_jit=True, auto_batch_size=False)
    return evaluator.dp.model["Default"]


def load_frozen(path: str) -> Any:
    """Load a frozen ``.pth`` onto the device that deepmd-kit would choose.

    Importing only what registers deepmd-kit's operators starts two seconds sooner than its
    ``DeepEval``.

    Parameters
    ----------
    path : str
        A model of ``dp --pt freeze``.

    Returns
    -------
    torch.jit.ScriptModule
        In evaluation mode.

    Raises
    ------
    RuntimeError
        If the file is something else.
    """
    torch: Any = importlib.import_module("torch")
    importlib.import_module("deepmd.pt.cxx_op")
    device = importlib.import_module("deepmd.pt.utils.env").DEVICE
    return torch.jit.load(path, map_location=device).eval()


def rebuild(frozen: Any) -> Any:
    """Return the model that a frozen one was made from, not compiled, with its weights.

    Parameters
    ----------
    frozen : torch.jit.ScriptModule
        Of :func:`load_frozen`.

    Returns
    -------
    torch.nn.Module
        In evaluation mode, on the same device.

    Raises
    ------
    RuntimeError
        If another release of deepmd-kit froze it, whose parameters have other names.
    """
    importlib.import_module("deepmd.pt")  # loads the plugins, whose types the JSON may name
    models: Any = importlib.import_module("deepmd.pt.model.model")
    model = models.get_model(json.loads(frozen.get_model_def_script()))
    model.load_state_dict(frozen.state_dict())
    return model.to(next(iter(frozen.parameters())).device).eval()


def no_jit_warm_up() -> Any:
    """Return a context in which TorchScript runs a model as it is.

    Its profiling executor spends the first calls on specialising code for the shapes it sees:
    seconds, and again whenever the sizes change.
    """
    torch: Any = importlib.import_module("torch")
    return torch.jit.optimized_execution(False)


def load_backbone(path: str, branch: str | None) -> Any:
    """Load one branch of a checkpoint for looking at its representations.

    Parameters
    ----------
    path : str
        A ``.pt`` checkpoint.
    branch : str or None
        A branch of a multi-task checkpoint.

    Returns
    -------
    torch.nn.Module
        The branch's model in evaluation mode, not compiled, so that hooks can be set. Its head is
        replaced by one that hands the descriptor through: ``forward_embedding`` then costs what the
        descriptor costs, with any head.
    """
    torch: Any = importlib.import_module("torch")

    class HandThrough(torch.nn.Module):
        def __init__(self, head: Any) -> None:
            super().__init__()
            self.output_def = head.output_def  # DPA-4's model asks for it

        def forward(self, descriptor: Any, *_args: Any, **_kwargs: Any) -> dict[str, Any]:
            return {"atomic_feature": descriptor}

    model = load_model(path, branch)
    if hasattr(model.atomic_model, "fitting_net"):
        model.atomic_model.fitting_net = HandThrough(model.atomic_model.fitting_net)
    return model
