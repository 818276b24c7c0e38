"""What deepmd-kit's descriptors keep inside: layers, the vectors of types."""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def is_of_type(descriptor: Any, name: str) -> bool:
    """Whether a descriptor is of the class that deepmd-kit builds for a type of the JSON."""
    module: Any = importlib.import_module("deepmd.pt.model.descriptor")
    return isinstance(descriptor, module.BaseDescriptor.get_class_by_type(name))


def watch_layer(layer: Any, see: Callable[[Any], None]) -> None:
    """Call ``see`` with the node representation that a layer returns.

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
    """Return the learnt vector of every type, ntypes x dim, that a ``TypeEmbedNet`` makes."""
    device = next(descriptor.parameters()).device
    return descriptor.type_embedding.get_full_embedding(device)[:-1].detach()


def type_table(descriptor: Any) -> Any:
    """Return the learnt vector of every type, ntypes x dim, of a DPA-4."""
    return descriptor.type_embedding.adam_type_embedding[: descriptor.get_ntypes()].detach()
