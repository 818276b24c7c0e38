"""Labels that are numbers of classes."""

from __future__ import annotations

import numpy as np

__all__ = ["not_classes"]


def not_classes(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the labels that are none of the classes 0 to ``num_classes`` - 1.

    What is not finite is no label.
    """
    known = labels[np.isfinite(labels)]
    return known[(known != np.round(known)) | (known < 0) | (known >= num_classes)]
