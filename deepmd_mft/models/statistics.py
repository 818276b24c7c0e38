"""Bias and scale of a property head, from the labels of the training set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deepmd_mft.errors import UserError
from deepmd_mft.structures.groups import mean_over

#: Ridge of the per-element fit, relative to each element's own diagonal entry of the normal
#: equations: far below the noise of any real label, enough to make a rank-deficient set of
#: compositions (all ABO3, say) solvable, and independent of the unit of the label.
RIDGE = 1e-4

#: The scale is never smaller than this fraction of the spread of the labels, so that a bias that
#: happens to fit every training label exactly (a few frames, many elements) does not make the
#: loss divide by rounding errors.
SCALE_FLOOR = 1e-3


@dataclass(frozen=True)
class StatisticsData:
    """What bias and scale are fitted to.

    Attributes
    ----------
    values : list of np.ndarray
        Labels of each property, or labels minus predictions, nframes x label dimension; NaN where
        missing.
    counts : np.ndarray
        Atoms of each type in each frame, nframes x ntypes.
    weights : np.ndarray
        How much the bias of each type counts in each frame, nframes x ntypes.
    groups : np.ndarray of int
        Group of each frame, whose label counts once; nframes, from 0.
    """

    values: list[np.ndarray]
    counts: np.ndarray
    weights: np.ndarray
    groups: np.ndarray

    def of_groups(
        self, number: int, *, intensive: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return labels, counts and weights of a property, one row for each group.

        Counts and weights are such that the bias adds to a row what it adds, on average, to the
        frames of the group: means over these, of an intensive property as shares of all atoms.
        """
        atoms = np.maximum(self.counts.sum(axis=1, keepdims=True), 1.0)
        size = mean_over(atoms, self.groups)
        per_atom, scale = (atoms, size) if intensive else (1.0, 1.0)
        return (
            mean_over(self.values[number], self.groups),
            mean_over(self.counts / per_atom, self.groups) * scale,
            mean_over(self.weights / per_atom, self.groups) * scale,
        )


@dataclass(frozen=True)
class OutputStatistics:
    """Constants applied to the output of a property head.

    Attributes
    ----------
    bias : np.ndarray
        Added to every atom's output. Shape: ntypes x task_dim, in the unit of the label.
    scale : np.ndarray
        Multiplies every atom's output. Shape: task_dim, in the unit of the label (per atom if
        extensive): the rms of what the bias leaves of the labels.
    unseen : np.ndarray
        Types without a training atom; their bias is that of an average element. Shape: ntypes,
        bool.
    """

    bias: np.ndarray
    scale: np.ndarray
    unseen: np.ndarray


def fit_output_statistics(
    labels: np.ndarray,
    counts: np.ndarray,
    weights: np.ndarray | None = None,
    *,
    readout: str,
    bias: str,
    property_name: str,
) -> OutputStatistics:
    """Fit the bias and scale of a property head.

    Parameters
    ----------
    labels : np.ndarray
        Labels of the training frames, nframes x task_dim. NaN marks a missing entry.
    counts : np.ndarray
        Atoms of each type in each frame, nframes x ntypes.
    weights : np.ndarray, optional
        How much the bias of each type counts in a frame, nframes x ntypes; the counts by default.
    readout : str
        ``mean``, ``sum``, ``max`` or ``attention``.
    bias : str
        ``element``, ``mean`` or ``none``.
    property_name : str
        For messages.

    Returns
    -------
    OutputStatistics

    Raises
    ------
    UserError
        If a component has fewer than two different labels.
    """
    labels, counts = _as_arrays(labels, counts)
    weights = counts if weights is None else weights
    there = counts.sum(axis=1) > 0  # all atoms of a frame may be excluded
    labels, counts, weights = labels[there], counts[there], weights[there]
    _require_variation(labels, property_name)
    bias_out = fit_bias(labels, counts, weights, readout=readout, bias=bias)
    natoms = counts.sum(axis=1, keepdims=True)
    per_atom = natoms if readout == "sum" else np.ones_like(natoms)
    constant = weights @ bias_out if readout == "sum" else (weights @ bias_out) / natoms
    left = (labels - constant) / per_atom
    floor = SCALE_FLOOR * np.nanstd(labels / per_atom, axis=0)
    scale = np.maximum(np.sqrt(np.nanmean(left**2, axis=0)), floor)
    return OutputStatistics(bias_out, scale, unseen=counts.sum(axis=0) == 0)


def fit_bias(
    labels: np.ndarray,
    counts: np.ndarray,
    weights: np.ndarray | None = None,
    *,
    readout: str,
    bias: str,
) -> np.ndarray:
    """Fit the constant that is added to every atom's output.

    For bias ``element`` the least squares of MFT (arXiv 2601.08486, Eq. 17),
    ``sum_z N_kz p(z) = y_k`` (sum) or ``N_k y_k`` (mean), around the best single value for all
    elements: ``p(z) = m + d(z)``, with a small ridge on ``d``. What the data do not determine
    (elements that are absent, directions that no composition resolves) thus falls back to the
    value of an average element instead of 0.

    Frames in which no bias counts (without atoms; a lone atom, at its own centre of mass, for a
    head that weighs by distance) determine nothing and are left out.

    Parameters
    ----------
    labels, counts, weights, readout, bias
        As for :func:`fit_output_statistics`.

    Returns
    -------
    np.ndarray
        ntypes x task_dim, in the unit of the label.
    """
    labels, counts = _as_arrays(labels, counts)
    weights = counts if weights is None else weights
    bias_out = np.zeros((counts.shape[1], labels.shape[1]))
    if bias == "none":
        return bias_out
    determined = (counts if readout == "max" else weights).sum(axis=1) > 0
    for component, y in enumerate(labels.T):
        known = np.isfinite(y) & determined
        if not known.any():
            continue
        bias_out[:, component] = _fit_component(
            y[known], weights[known], readout=readout, per_element=bias == "element"
        )
    return bias_out


def _as_arrays(labels: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    counts = np.asarray(counts, dtype=np.float64)
    return np.asarray(labels, dtype=np.float64).reshape(len(counts), -1), counts


def _require_variation(labels: np.ndarray, property_name: str) -> None:
    for component, y in enumerate(labels.T):
        name = f"'{property_name}'" + (f", component {component}" if labels.shape[1] > 1 else "")
        known = y[np.isfinite(y)]
        if len(known) == 0:
            raise UserError(
                f"property {name} has no label at all in the training data; "
                "check property_name and the label files"
            )
        if len(known) == 1:
            raise UserError(
                f"property {name} has one labelled training frame; its scale needs at least two "
                "frames with different labels"
            )
        if np.ptp(known) == 0.0:
            raise UserError(
                f"property {name} is {known[0]:.6g} in all {len(known)} labelled training frames: "
                "there is nothing to learn; check that the label file holds the property"
            )


def _fit_component(
    y: np.ndarray, weights: np.ndarray, *, readout: str, per_element: bool
) -> np.ndarray:
    """Return the bias of each type (ntypes) for one component."""
    ntypes = weights.shape[1]
    if readout == "max":
        return np.full(ntypes, y.mean())
    total = weights.sum(axis=1)
    if not per_element:
        return np.full(ntypes, (y / total).mean() if readout == "sum" else y.mean())
    target = y if readout == "sum" else total * y
    single = (total @ target) / (total @ total)
    normal = weights.T @ weights
    seen = np.diag(normal) > 0
    ridge = np.diag(RIDGE * np.diag(normal))
    deviation = np.zeros(ntypes)
    deviation[seen] = np.linalg.solve(
        (normal + ridge)[np.ix_(seen, seen)], (weights.T @ (target - total * single))[seen]
    )
    return single + deviation
