"""How alike a checkpoint finds the elements (JMP, arXiv 2310.16802, Fig. 6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from deepmd_mft.representations.backbone import Backbone

__all__ = ["element_similarity"]


def element_similarity(backbone: Backbone) -> tuple[list[str], np.ndarray] | None:
    """Return the cosines between the learnt vectors of the elements.

    Elements that the checkpoint never saw in training keep their random start: their cosines say
    nothing.

    Parameters
    ----------
    backbone : Backbone

    Returns
    -------
    symbols : list of str
        The type map, ``ntypes`` long.
    cosines : np.ndarray
        ``ntypes x ntypes``.
        None instead of both if the descriptor has no type embedding.
    """
    vectors = backbone.family.type_vectors(backbone.descriptor)
    if vectors is None:
        return None
    table = vectors.double().cpu().numpy()
    unit = table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-300)
    return backbone.type_map, unit @ unit.T
