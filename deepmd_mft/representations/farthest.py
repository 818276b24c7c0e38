"""A diverse subset: farthest-point sampling."""

from __future__ import annotations

import numpy as np

__all__ = ["farthest_points"]


def farthest_points(features: np.ndarray, number: int) -> np.ndarray:
    """Choose points that are far from each other (Gonzalez 1985; no draw, equal every time).

    The first is the one farthest from the mean, each further one the farthest from all that are
    chosen, the first in order where several are.

    Parameters
    ----------
    features : np.ndarray
        npoints x width; Euclidean distances count.
    number : int
        How many to choose.

    Returns
    -------
    np.ndarray of int
        Their rows, in the order in which they are chosen; all where there are no more.
    """
    number = min(number, len(features))
    chosen = np.empty(number, dtype=int)
    # Squared distances up to the square of the chosen point, by one product of matrix and vector.
    points = features - features.mean(axis=0)
    squares = np.einsum("ij,ij->i", points, points)
    nearest = squares.copy()
    for step in range(number):
        chosen[step] = row = int(np.argmax(nearest))
        distance = squares - 2 * (points @ points[row]) + squares[row]
        nearest = distance if step == 0 else np.minimum(nearest, distance)
        nearest[row] = -np.inf  # equal points: each once
    return chosen
