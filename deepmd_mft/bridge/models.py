"""Building and loading models as deepmd-kit does."""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


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
        def forward(self, descriptor: Any, *_args: Any, **_kwargs: Any) -> dict[str, Any]:
            return {"atomic_feature": descriptor}

    model = load_model(path, branch)
    model.atomic_model.fitting_net = HandThrough()
    return model


def message_layers(descriptor: Any) -> list[Any]:
    """Return the message-passing layers of a descriptor, in order; none if it has no such."""
    for block in ("repflows", "repformers"):  # DPA-3, DPA-2
        if hasattr(descriptor, block):
            return list(getattr(descriptor, block).layers)
    return []


def watch_layer(layer: Any, see: Callable[[Any], None]) -> None:
    """Call ``see`` with the node representation, nf x nloc x dim, that a layer returns.

    deepmd-kit calls ``layer.forward`` itself, past the forward hooks of torch.
    """
    forward = layer.forward

    @functools.wraps(forward)
    def watched(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        see(output[0])
        return output

    layer.forward = watched


def type_embedding(descriptor: Any) -> Any:
    """Return the learnt vector of every type, ntypes x dim, or None if the descriptor has none."""
    net = getattr(descriptor, "type_embedding", None)
    if net is None:
        return None
    device = next(descriptor.parameters()).device
    return net.get_full_embedding(device)[:-1].detach()
