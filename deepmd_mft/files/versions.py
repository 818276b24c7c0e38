"""The versions that a record names."""

from __future__ import annotations

import importlib.metadata

__all__ = ["package_versions"]

#: What numbers and files of this package depend on.
_PACKAGES = (
    "deepmd-mft",
    "deepmd-kit",
    "torch",
    "numpy",
    "scipy",
    "scikit-learn",
    "dpdata",
    "ase",
    "rdkit",
    "tblite",
    "POT",
)


def package_versions() -> dict[str, str]:
    """Return package to version, of what is installed."""
    installed = {name: importlib.metadata.distributions(name=name) for name in _PACKAGES}
    first = {name: next(iter(found), None) for name, found in installed.items()}
    return {name: one.version for name, one in first.items() if one is not None}
