"""The models of an ensemble, and what they make of structures."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from deepmd_mft.errors import UserError
from deepmd_mft.inference.predictor import Predictor
from deepmd_mft.report.distance import fingerprints
from deepmd_mft.uncertainty.estimate import Looked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deepmd_mft.checkpoints.model_file import ModelFile
    from deepmd_mft.inference.predictor import Output
    from deepmd_mft.structures.structure_set import StructureSet

__all__ = ["Ensemble"]


class Ensemble:
    """Property models of the same outputs.

    Parameters
    ----------
    files : sequence of ModelFile

    Raises
    ------
    UserError
        If a model does not predict numbers, two predict different properties, or two are equal.
    """

    def __init__(self, files: Sequence[ModelFile]) -> None:
        self.files = list(files)
        self.predictors = [Predictor.load(one.path, one.branch) for one in files]
        self.outputs: list[Output] = self.predictors[0].outputs
        self.checksums = [model_checksum(one) for one in self.predictors]
        for file, one in zip(files, self.predictors, strict=True):
            if one.is_force_field or any(output.num_classes for output in one.outputs):
                kind = "energies and forces" if one.is_force_field else "classes"
                raise UserError(
                    f"{file.path} predicts {kind}; this verb takes models that predict numbers, "
                    "use `dp-mft evaluate` (--head chooses another branch)"
                )
            if one.outputs != self.outputs:
                names = [", ".join(o.name for o in two) for two in (self.outputs, one.outputs)]
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
    def columns(self) -> list[str]:
        """Name of each column of the predictions."""
        return [
            one.name if one.columns == 1 else f"{one.name}_{number}"
            for one in self.outputs
            for number in range(one.columns)
        ]

    def look(self, structures: StructureSet) -> Looked:
        """Predict and represent structures.

        Raises
        ------
        UserError
            If a structure has an element that a model does not know, a model needs what the
            structures lack, or a prediction is not a number.
        """
        predictions, variances, latent, last = [], [], [], []
        natoms = structures.natoms[:, None]
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
            predictions.append(values)
            if one.variances:
                variances.append(np.hstack([found[output.name] for output in one.variances]))
            latent.append(one.represent(batches, "descriptor"))
            features = one.represent(batches, "last_layer")
            with_bias = np.hstack([features, np.ones((len(features), 1))])
            last.append(with_bias * natoms if _is_sum(one.params) else with_bias)
        every = len(variances) == len(predictions)
        return Looked(
            np.array(predictions),
            np.array(variances) if every else None,
            latent,
            last,
            fingerprints(structures),
        )


def model_checksum(predictor: Predictor) -> str:
    """Return the SHA-256 of the weights: a frozen model has that of its checkpoint."""
    digest = hashlib.sha256()
    for name, weights in sorted(predictor.model.named_parameters()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(weights.detach().cpu().numpy()).tobytes())
    return digest.hexdigest()


def _is_sum(params: dict[str, Any]) -> bool:
    """Return whether the prediction is a sum over the atoms, so that features are too."""
    net = params["fitting_net"]
    readout = net.get("readout")
    if readout is None:
        intensive = net.get("intensive", False)
        return not (all(intensive) if isinstance(intensive, list) else intensive)
    return readout == "sum"
