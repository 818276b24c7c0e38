"""The curve between two checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from deepmd_mft.plots.drawing import Drawing, draw
from deepmd_mft.plots.style import BLUE, VERMILLION

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def validation_curve(
    alphas: list[float], values: list[float], best: float, metric: str, about: str
) -> Drawing:
    """Draw the validation error of the models between two checkpoints.

    Parameters
    ----------
    alphas, values : list of float
        Of one length.
    best : float
        The alpha that was chosen.
    metric, about : str
        What is drawn, and of which property.
    """
    numbers = pd.DataFrame({"alpha": alphas, metric: values})

    def paint(axes: Axes, colours: dict[str, str]) -> None:
        axes.plot(alphas, values, "o-", color=BLUE, markersize=5, label="validation data")
        lowest = values[alphas.index(best)]
        name = f"chosen: alpha {best:g}"
        axes.plot([best], [lowest], "D", color=VERMILLION, markersize=9, label=name)
        axes.set_xlabel("alpha (0: first checkpoint, 1: second)")
        axes.set_ylabel(f"{metric} {about}")
        axes.legend(labelcolor=colours["ink"])

    caption = (
        "Error on validation data of the weighted means of two checkpoints, (1 - alpha) of the "
        "first and alpha of the second."
    )
    return draw("curve", "Between two checkpoints", caption, numbers, paint)
