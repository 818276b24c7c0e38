"""The curve between two checkpoints."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING

import pandas as pd

from deepmd_mft.plots.drawing import Drawing, draw
from deepmd_mft.plots.style import COLOURS, VERMILLION

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def validation_curve(
    alphas: list[float], curves: dict[str, list[float]], best: float, what: tuple[str, str]
) -> Drawing:
    """Draw the validation error of the models between two checkpoints.

    Parameters
    ----------
    alphas : list of float
    curves : dict of str to list of float
        Errors at each alpha: of all validation data first, then of its sets.
    best : float
        The alpha that was chosen by the first.
    what : tuple of str
        The metric, and of which property it is.
    """
    numbers = pd.DataFrame({"alpha": alphas, **curves})

    def paint(axes: Axes, colours: dict[str, str]) -> None:
        marks = zip(curves.items(), cycle(COLOURS[:1] + COLOURS[2:]), cycle("os^vP"), strict=False)
        for (name, values), colour, marker in marks:
            axes.plot(alphas, values, f"{marker}-", color=colour, markersize=5, label=name)
        lowest = next(iter(curves.values()))[alphas.index(best)]
        name = f"chosen: alpha {best:g}"
        axes.plot([best], [lowest], "D", color=VERMILLION, markersize=9, label=name)
        axes.set_xlabel("alpha (0: first checkpoint, 1: second)")
        axes.set_ylabel(" ".join(what))
        place = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0)}  # above, over no curve
        axes.legend(labelcolor=colours["ink"], ncols=2, **place)

    caption = (
        "Error on validation data of the weighted means of two checkpoints, (1 - alpha) of the "
        "first and alpha of the second."
    )
    return draw("curve", "Between two checkpoints", caption, numbers, paint)
