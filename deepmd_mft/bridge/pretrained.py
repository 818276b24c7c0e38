"""deepmd-kit's registry of pretrained models, and what `dp pretrained download` has left."""

from __future__ import annotations

from pathlib import Path

from deepmd.pretrained.download import DEFAULT_CACHE_DIR
from deepmd.pretrained.registry import MODEL_REGISTRY

__all__ = ["downloaded", "registered"]


def registered() -> dict[str, str]:
    """Return the SHA-256 of every model of the registry, by name."""
    return {name: str(model["sha256"]) for name, model in MODEL_REGISTRY.items()}


def downloaded(name: str) -> Path:
    """Return where `dp pretrained download` puts a model of the registry by default."""
    return Path(DEFAULT_CACHE_DIR) / str(MODEL_REGISTRY[name]["filename"])
