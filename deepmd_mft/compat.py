"""Every touch of names that deepmd-kit does not document as public.

One place to mend when deepmd-kit moves; ``tests/test_compat.py`` fails when one of them does.
Nothing heavy is imported at the top: ``deepmd_mft.plugin`` loads this module in every
``import deepmd.pt``.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.abc
import importlib.util
import sys
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType


# --- importing late ---------------------------------------------------------------------------
#
# deepmd-kit imports a plugin before its own model and loss modules, which take seconds to load.
# Registering needs those modules. A plugin that imported them would slow every `import deepmd.pt`
# that never builds a model, so each registration waits for the deepmd module it extends.


class _AfterImport(importlib.abc.MetaPathFinder):
    """Call a function once, right after one module has been imported."""

    def __init__(self, module: str, action: Callable[[], object]) -> None:
        self.module = module
        self.action = action

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002  (the protocol's signature)
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """Find the awaited module with the other finders and wrap its loader."""
        if fullname != self.module:
            return None
        sys.meta_path.remove(self)  # asked once; the search below must not come back here
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            self.action()

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def after_import(module: str, action: Callable[[], object]) -> None:
    """Call ``action`` as soon as ``module`` is imported, or now if it already is.

    Parameters
    ----------
    module : str
        The full name of a module.
    action : callable
        Called once, without arguments.
    """
    if module in sys.modules:
        action()
    else:
        sys.meta_path.insert(0, _AfterImport(module, action))


# --- the JSON schema --------------------------------------------------------------------------


def native_arguments(plugin: str, name: str) -> list[Any]:
    """Return deepmd-kit's own dargs arguments of a fitting net or loss.

    Parameters
    ----------
    plugin : str
        ``"fitting"`` or ``"loss"``.
    name : str
        The registered type, for instance ``"property"`` or ``"ener"``.

    Returns
    -------
    list of dargs.Argument
        The sub-fields, with their names, defaults and doc strings.
    """
    argcheck = importlib.import_module("deepmd.utils.argcheck")
    return list(getattr(argcheck, f"{plugin}_args_plugin").get_argument(name).sub_fields.values())


# --- building a model -------------------------------------------------------------------------


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


# --- reading data -----------------------------------------------------------------------------


class InlineExecutor:
    """Does at once, in the calling thread, what is submitted to it."""

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        """Take a thread pool's arguments; there is no pool."""

    def __enter__(self) -> InlineExecutor:  # noqa: PYI034  (Self is in typing from 3.11)
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def submit(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Future[Any]:
        """Call a function; return a finished future."""
        future: Future[Any] = Future()
        try:
            future.set_result(call(*args, **kwargs))
        except Exception as error:  # noqa: BLE001  (a future carries whatever was raised)
            future.set_exception(error)
        return future


def read_frames_without_threads() -> None:
    """Let deepmd-kit read the frames of npy systems in the calling thread.

    deepmd-kit 3.2.0 starts a thread pool for each frame it reads, to fetch a few memory-mapped
    rows: three times the time of the reading itself (benchmarks/reading.py), a fifth to a third of
    a training step of small molecules on two busy cores. The frames read are the same.
    """
    data = importlib.import_module("deepmd.utils.data")
    if hasattr(data, "ThreadPoolExecutor"):
        data.ThreadPoolExecutor = InlineExecutor  # type: ignore[attr-defined]


# --- the command line -------------------------------------------------------------------------


def check_before_commands(check: Callable[[argparse.Namespace], None]) -> None:
    """Call ``check`` with the parsed command line before ``dp --pt`` acts on it.

    deepmd-kit has no hook between reading the input and training. ``UserError``, whether from
    ``check`` or later from a model or loss of this package, ends the command with its message
    and status 1, without a traceback.

    Parameters
    ----------
    check : callable
        Takes the ``argparse.Namespace`` of ``dp``.
    """
    from deepmd_mft.errors import UserError  # noqa: PLC0415

    entrypoints: Any = importlib.import_module("deepmd.pt.entrypoints.main")
    deepmd_main = entrypoints.main

    @functools.wraps(deepmd_main)
    def main(args: list[str] | argparse.Namespace | None = None) -> None:
        try:
            if args is not None and not isinstance(args, list):
                check(args)
            deepmd_main(args)
        except UserError as error:
            raise SystemExit(f"deepmd_mft: {error}") from None

    entrypoints.main = main


# --- evaluating ---------------------------------------------------------------------------------


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


class NeighbourLists:
    """Remembers the neighbour lists of batches that several models of one shape see.

    The models must not be compiled, and have the same cutoff and ``sel``: checkpoints of one run.
    """

    def __init__(self) -> None:
        self._found: dict[int, Any] = {}
        self._batch = threading.local()

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Use the lists known, and remember new ones, in the block."""
        make_model: Any = importlib.import_module("deepmd.pt.model.model.make_model")
        build = make_model.extend_input_and_build_neighbor_list

        def remember(*args: Any, **kwargs: Any) -> Any:
            number = self._batch.number
            if number not in self._found:
                self._found[number] = build(*args, **kwargs)
            return self._found[number]

        make_model.extend_input_and_build_neighbor_list = remember
        try:
            yield
        finally:
            make_model.extend_input_and_build_neighbor_list = build

    def choose(self, number: int) -> None:
        """Say which batch this thread sees next."""
        self._batch.number = number


def count_neighbours(coord: Any, cell: Any, rcut: float) -> Any:
    """Count the neighbours of every atom with deepmd-kit's own search.

    Parameters
    ----------
    coord : np.ndarray
        nloc x 3, in Angstrom.
    cell : np.ndarray or None
        3 x 3, in Angstrom; None for a molecule.
    rcut : float
        In Angstrom.

    Returns
    -------
    np.ndarray of int
        Shape nloc.
    """
    torch: Any = importlib.import_module("torch")
    nlist: Any = importlib.import_module("deepmd.pt.utils.nlist")
    position = torch.as_tensor(coord, dtype=torch.float64).reshape(1, -1, 3)
    atype = torch.zeros(position.shape[:2], dtype=torch.long)
    box = None if cell is None else torch.as_tensor(cell, dtype=torch.float64).reshape(1, 9)
    extended, _, _ = nlist.extend_coord_with_ghosts(position, atype, box, rcut)
    distance = torch.cdist(position[0], extended.reshape(-1, 3))
    return (distance < rcut).sum(dim=1).cpu().numpy() - 1


# --- representations ----------------------------------------------------------------------------


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
