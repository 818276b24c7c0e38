"""Calibration on validation data, and the file that keeps it."""

from __future__ import annotations

import json
import math
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse
from scipy.stats import norm

from deepmd_mft.errors import UserError
from deepmd_mft.structures.duplicates import duplicate_groups
from deepmd_mft.uncertainty.estimate import STDS, Looked, Reference, laplace, usable_stds
from deepmd_mft.uncertainty.score import nll

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from deepmd_mft.structures.structure_set import StructureSet

__all__ = ["INTERVALS", "Calibration", "calibrate", "check_apart", "conformal_quantile"]

#: Ridges of the last-layer Laplace that are tried, in mean eigenvalues of F^T F.
RIDGES = 10.0 ** np.arange(-9.0, 0.5)
#: Training structures kept; drawn at random if there are more.
MOST = 5000


def conformal_quantile(scores: np.ndarray, coverage: float) -> np.ndarray:
    """Return the quantile of each column that split conformal prediction takes.

    Parameters
    ----------
    scores : np.ndarray
        nframes x columns.
    coverage : float
        Fraction of new labels that shall be within.

    Raises
    ------
    UserError
        If there are too few structures for this coverage.
    """
    n = len(scores)
    rank = math.ceil((n + 1) * coverage - 1e-9)
    if rank > n:
        raise UserError(
            f"{n} validation structures are too few for intervals of coverage {coverage:g}; give "
            f"{math.ceil(coverage / (1 - coverage) - 1e-9)} or more"
        )
    return np.asarray(np.sort(scores, axis=0)[rank - 1])


def z_scale(error: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Return the factor of std that makes the squared error of each column what it says."""
    return np.asarray(np.sqrt(np.mean((error / std) ** 2, axis=0)))


def _absolute(error: np.ndarray, _std: np.ndarray, coverage: float) -> np.ndarray:
    return conformal_quantile(np.abs(error), coverage)


def _normalised(error: np.ndarray, std: np.ndarray, coverage: float) -> np.ndarray:
    return conformal_quantile(np.abs(error) / std, coverage)


def _gaussian(error: np.ndarray, std: np.ndarray, coverage: float) -> np.ndarray:
    return np.asarray(norm.ppf(0.5 + coverage / 2) * z_scale(error, std))


#: Half the width of intervals, each of error, std and coverage; ``absolute`` is it already, the
#: others are a factor of std.
INTERVALS: dict[str, Callable[[np.ndarray, np.ndarray, float], np.ndarray]] = {
    "absolute": _absolute,
    "normalised": _normalised,
    "gaussian": _gaussian,
}


@dataclass
class Calibration:
    """What is kept beside the models.

    Parameters
    ----------
    record : dict
        Models, sets, coverage, columns and versions.
    reference : Reference
        Of the training set.
    scales : dict
        By the name of a standard deviation, its factor for each column.
    halves : dict
        By standard deviation and interval, as :data:`INTERVALS` returns them.
    """

    record: dict[str, Any]
    reference: Reference
    scales: dict[str, np.ndarray]
    halves: dict[tuple[str, str], np.ndarray]

    def std(self, looked: Looked, name: str) -> np.ndarray:
        """Return the calibrated standard deviation, nframes x columns."""
        if name not in self.scales:
            raise UserError(
                f"the calibration has no {name}, but {', '.join(self.scales)}; "
                + why_not(name, len(looked.predictions))
            )
        return np.asarray(positive(STDS[name](looked, self.reference)) * self.scales[name])

    def interval(self, looked: Looked, name: str, kind: str) -> tuple[np.ndarray, np.ndarray]:
        """Return lower and upper ends, nframes x columns each."""
        std = self.std(looked, name) / self.scales[name]
        half = self.halves[name, kind] * (np.ones_like(std) if kind == "absolute" else std)
        return looked.mean - half, looked.mean + half

    def save(self, path: Path) -> None:
        """Write it as one ``.npz``."""
        kept = self.reference
        arrays = {
            "record": np.array(json.dumps(self.record)),
            "ids": np.array(kept.ids),
            "ridge": np.array(kept.ridge),
            "print_data": kept.fingerprints.data.astype(np.float32),
            "print_indices": kept.fingerprints.indices,
            "print_indptr": kept.fingerprints.indptr,
            "print_shape": np.array(kept.fingerprints.shape),
        }
        for number, values in enumerate(kept.latent):
            arrays[f"latent:{number}"] = values.astype(np.float32)
            arrays[f"moment:{number}"] = kept.second_moments[number]
        arrays |= {f"scale:{name}": values for name, values in self.scales.items()}
        arrays |= {f"half:{one}:{kind}": v for (one, kind), v in self.halves.items()}
        with path.open("wb") as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: Path, checksums: list[str]) -> Calibration:
        """Read the file for models of these checksums.

        Raises
        ------
        UserError
            If it is none, or one of other models.
        """
        if not path.is_file():
            raise UserError(f"calibration {path} does not exist; `dp-mft calibrate` makes it")
        try:
            with np.load(path, allow_pickle=False) as file:
                found = {name: file[name] for name in file.files}
            made = cls._of(found)
            known = [one["weights_sha256"] for one in made.record["models"]]
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, TypeError):
            raise UserError(
                f"{path} is no calibration of `dp-mft calibrate`; make it anew"
            ) from None
        if known != checksums:
            names = ", ".join(one["path"] for one in made.record["models"])
            raise UserError(
                f"{path} is the calibration of other models, or in another order: {names}; give "
                "those (frozen or not), or calibrate these with `dp-mft calibrate`"
            )
        return made

    @classmethod
    def _of(cls, found: dict[str, np.ndarray]) -> Calibration:
        prints = sparse.csr_matrix(
            (found["print_data"], found["print_indices"], found["print_indptr"]),
            shape=tuple(found["print_shape"].tolist()),
        )
        count = len(found["ridge"])
        reference = Reference(
            found["ids"].tolist(),
            [found[f"latent:{number}"].astype(float) for number in range(count)],
            [found[f"moment:{number}"] for number in range(count)],
            found["ridge"].tolist(),
            prints,
        )
        scales = {k.split(":")[1]: v for k, v in found.items() if k.startswith("scale:")}
        halves = {
            (k.split(":")[1], k.split(":")[2]): v for k, v in found.items() if k.startswith("half:")
        }
        return cls(json.loads(str(found["record"])), reference, scales, halves)


def calibrate(
    train: Looked, ids: list[str], valid: Looked, label: np.ndarray, record: dict[str, Any]
) -> Calibration:
    """Calibrate every standard deviation that the models have.

    Parameters
    ----------
    train, valid : Looked
    ids : list of str
        Names of the training structures.
    label : np.ndarray
        Of the validation structures, nframes x columns.
    record : dict
        Kept in the file; its ``coverage`` is that of the intervals.
    """
    error = valid.mean - label
    moments = [features.T @ features for features in train.last]
    own = zip(valid.last, moments, valid.predictions, strict=True)
    ridge = [_best_ridge(features, moment, one - label) for features, moment, one in own]
    chosen = np.arange(len(ids))
    if len(ids) > MOST:
        draw = np.random.default_rng(record["seed"]).choice(len(ids), MOST, replace=False)
        chosen = np.sort(draw)
    reference = Reference(
        [ids[row] for row in chosen.tolist()],
        [values[chosen] for values in train.latent],
        moments,
        ridge,
        train.fingerprints[chosen],
    )
    scales, halves = {}, {}
    for name in usable_stds(valid, has_reference=True):
        std = positive(STDS[name](valid, reference))
        scales[name] = z_scale(error, std)
        for kind, half in INTERVALS.items():
            halves[name, kind] = half(error, std, record["coverage"])
    return Calibration(record, reference, scales, halves)


def _best_ridge(features: np.ndarray, moment: np.ndarray, error: np.ndarray) -> float:
    """Return the ridge of the highest likelihood on validation data, after z-scaling."""
    unit = float(np.trace(moment)) / len(moment)

    def loss(ridge: float) -> float:
        std = np.sqrt(laplace(features, moment, ridge))[:, None] * np.ones_like(error)
        return nll(error, std * z_scale(error, std))

    return float(min((unit * one for one in RIDGES.tolist()), key=loss))


def positive(std: np.ndarray) -> np.ndarray:
    """Return std, nowhere 0: models that agree by chance are not certain."""
    return np.maximum(std, 1e-6 * max(float(std.max(initial=0.0)), 1e-12))


def why_not(name: str, models: int) -> str:
    """Say what a standard deviation needs."""
    needs = {
        "ensemble": "an ensemble needs two models or more: train with another seed and give both"
        if models == 1
        else "calibrate these models together",
        "variance": "a variance head is trained with predict_variance and the loss gaussian_nll",
        "llpr": "the last-layer Laplace needs a calibration (--calibration)",
    }
    return needs[name]


def check_apart(train: StructureSet, valid: StructureSet) -> None:
    """Refuse a calibration set that is a test set, or shares structures with the training set.

    Raises
    ------
    UserError
        With the number of shared structures and the first of them.
    """
    for folder in valid.folders:
        if "test" in folder.resolve().name.lower().split("_"):
            raise UserError(
                f"{folder} is a test set; calibrate on validation data, or no figure on the test "
                "set can be believed"
            )
    both = [*train.with_some_names(), *valid.with_some_names()]
    known = duplicate_groups([""] * len(both), [*train.smiles, *valid.smiles], both)
    shared = np.flatnonzero(np.isin(known[len(train) :], known[: len(train)]))
    if len(shared):
        raise UserError(
            f"{len(shared)} of {len(valid)} structures of {valid.name} are in the training set "
            f"{train.name} too ({valid.ids[int(shared[0])]} first); errors of what a model was "
            "trained on are too small, give validation data"
        )
