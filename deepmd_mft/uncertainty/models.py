"""The models of an ensemble, and what they make of structures."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from deepmd_mft.checkpoints.branch import intensive_properties
from deepmd_mft.errors import UserError
from deepmd_mft.evaluation.labels import labels_of
from deepmd_mft.inference.predictor import Predictor
from deepmd_mft.report.distance import fingerprints
from deepmd_mft.structures.pooling import Pooling
from deepmd_mft.uncertainty.estimate import Looked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deepmd_mft.checkpoints.model_file import ModelFile
    from deepmd_mft.inference.predictor import Output
    from deepmd_mft.structures.structure_set import StructureSet

__all__ = ["Ensemble"]


class Ensemble:
    """Models of the same properties, or of the same classes.

    Parameters
    ----------
    files : sequence of ModelFile

    Raises
    ------
    UserError
        If a model predicts energies and forces, two predict different properties, or two are equal.
    """

    def __init__(self, files: Sequence[ModelFile]) -> None:
        self.files = list(files)
        self.predictors = [Predictor.load(one.path, one.branch) for one in files]
        self.outputs: list[Output] = self.predictors[0].outputs
        self.checksums = [model_checksum(one) for one in self.predictors]
        for file, one in zip(files, self.predictors, strict=True):
            if one.is_force_field:
                raise UserError(
                    f"{file.path} predicts energies and forces; this verb takes models of "
                    "properties, use `dp-mft evaluate` (--head chooses another branch)"
                )
            if one.outputs != self.outputs:
                names = [_named(two) for two in (self.outputs, one.outputs)]
                raise UserError(
                    f"{files[0].path} predicts {names[0]} and {file.path} {names[1]}; the models "
                    "of an ensemble predict the same"
                )
        for number, text in enumerate(self.checksums):
            first = self.checksums.index(text)
            if first < number:
                raise UserError(
                    f"{files[first].path} and {files[number].path} are the same model; an ensemble "
                    "is made of trainings with different seeds"
                )

    @property
    def num_classes(self) -> int | None:
        """Number of classes that the models tell; None if they predict numbers."""
        return self.outputs[0].num_classes

    @property
    def columns(self) -> list[str]:
        """Name of each column of the labels."""
        return [
            one.name if one.label_columns == 1 else f"{one.name}_{number}"
            for one in self.outputs
            for number in range(one.label_columns)
        ]

    def labels(self, structures: StructureSet) -> np.ndarray:
        """Return the labels of a set, nframes x columns; NaN where there is none.

        Where they belong to groups of frames, there is one row for each group.

        Raises
        ------
        UserError
            If a label is no class of the models.
        """
        parts = []
        structures = Pooling(structures).structures
        for output in self.outputs:
            found = labels_of(structures, output)
            empty = np.full((len(structures), output.label_columns), np.nan)
            parts.append(empty if found is None else found)
        return np.hstack(parts)

    def look(self, structures: StructureSet) -> Looked:
        """Predict and represent structures; means over groups of frames that have one label.

        Raises
        ------
        UserError
            If a structure has an element that a model does not know, a model needs what the
            structures lack, or a prediction is not a number.
        """
        structures = structures.with_type_map(self.predictors[0].type_map)
        predictions, variances, latent, last = [], [], [], []
        pool = Pooling(structures).mean
        for file, one in zip(self.files, self.predictors, strict=True):
            batches = one.batches(structures)
            found = one.predict(batches, variances=True)
            values = np.hstack([found[output.name] for output in one.outputs])
            if not np.isfinite(values).all():
                row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
                raise UserError(
                    f"{file.path} predicts no number for structure {structures.ids[row]} of "
                    f"{structures.name}; look at its geometry"
                )
            predictions.append(pool(values))
            if one.variances:
                variances.append(pool(np.hstack([found[output.name] for output in one.variances])))
            latent.append(pool(one.represent(batches, "descriptor")))
            if self.num_classes:
                continue
            features = pool(one.represent(batches, "last_layer"))
            last.append(np.hstack([features, np.ones((len(features), 1))]))
        every = len(variances) == len(predictions)
        return Looked(
            np.array(predictions),
            np.array(variances) if every else None,
            latent,
            last,
            fingerprints(structures),
            pool(np.where(self._sums(), structures.natoms[:, None], 1.0)),
        )

    def _sums(self) -> list[bool]:
        """Return of each column whether it is a sum over the atoms."""
        intensive = intensive_properties(self.predictors[0].params)
        return [not intensive[one.name] for one in self.outputs for _ in range(one.label_columns)]


def _named(outputs: list[Output]) -> str:
    return ", ".join(
        f"{one.name} ({one.num_classes} classes)" if one.num_classes else one.name
        for one in outputs
    )


def model_checksum(predictor: Predictor) -> str:
    """Return the SHA-256 of the weights: a frozen model has that of its checkpoint."""
    digest = hashlib.sha256()
    for name, weights in sorted(predictor.model.named_parameters()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(weights.detach().cpu().numpy()).tobytes())
    return digest.hexdigest()
