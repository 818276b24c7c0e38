"""The file beside the models that says how far to believe them."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from deepmd_mft.uncertainty.estimate import Reference

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Self

    from deepmd_mft.uncertainty.estimate import Looked

__all__ = ["Calibration"]


@dataclass
class Calibration(ABC):
    """What is kept beside the models: what their predictions need, and the training set.

    Parameters
    ----------
    record : dict
        Models, sets, columns, number of classes (None of numbers) and versions.
    reference : Reference
        Of the training set.
    """

    record: dict[str, Any]
    reference: Reference

    @classmethod
    @abstractmethod
    def fit(
        cls,
        train: Looked,
        valid: Looked,
        label: np.ndarray,
        record: dict[str, Any],
        reference: Reference,
    ) -> Self:
        """Calibrate on validation data.

        Parameters
        ----------
        train, valid : Looked
        label : np.ndarray
            Of the validation structures, nframes x columns.
        record : dict
        reference : Reference
        """

    @abstractmethod
    def doubts(self, looked: Looked) -> dict[str, np.ndarray]:
        """Return by name what is larger the less certain a prediction is, nframes each."""

    @abstractmethod
    def described(self) -> list[str]:
        """Return what was found, in lines to print."""

    @abstractmethod
    def arrays(self) -> dict[str, np.ndarray]:
        """Return what the file keeps of it beside record and reference."""

    @classmethod
    @abstractmethod
    def of_arrays(
        cls, record: dict[str, Any], reference: Reference, found: dict[str, np.ndarray]
    ) -> Self:
        """Return what :meth:`arrays` was made of."""

    def save(self, path: Path) -> None:
        """Write it as one ``.npz``."""
        kept = self.reference
        arrays = {
            "record": np.array(json.dumps(self.record)),
            "ids": np.array(kept.ids),
            "print_data": kept.fingerprints.data.astype(np.float32),
            "print_indices": kept.fingerprints.indices,
            "print_indptr": kept.fingerprints.indptr,
            "print_shape": np.array(kept.fingerprints.shape),
        }
        for number, values in enumerate(kept.latent):
            arrays[f"latent:{number}"] = values.astype(np.float32)
        arrays |= self.arrays()
        with path.open("wb") as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, record: dict[str, Any], found: dict[str, np.ndarray]) -> Self:
        """Return what :meth:`save` has written."""
        prints = sparse.csr_matrix(
            (found["print_data"], found["print_indices"], found["print_indptr"]),
            shape=tuple(found["print_shape"].tolist()),
        )
        latent = [
            found[f"latent:{number}"].astype(float)
            for number in range(sum(name.startswith("latent:") for name in found))
        ]
        return cls.of_arrays(record, Reference(found["ids"].tolist(), latent, prints), found)
