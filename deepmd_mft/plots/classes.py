"""Figures of a report on classes: confusion matrices and reliability diagrams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np

from deepmd_mft.plots.drawing import Drawing, draw
from deepmd_mft.plots.style import LINES, MARKERS
from deepmd_mft.report.classes import Told, confusion_table, reliability_table, told_classes
from deepmd_mft.report.distance import FEWEST
from deepmd_mft.report.strategy import STRATEGIES
from deepmd_mft.uncertainty.class_score import ece

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from deepmd_mft.report.runs import Run

#: Classes from which on the cells of a confusion matrix are too small for numbers.
CROWDED = 9


def class_figures(runs: list[Run], tests: list[str]) -> list[Drawing]:
    """Return the figures of runs that learn classes.

    Parameters
    ----------
    runs : list of Run
    tests : list of str
        Test sets in order.
    """
    told = told_classes(runs)
    if not told:
        return []
    strategies = list(dict.fromkeys(one.strategy for one in told))
    found = [confusion([one for one in told if one.strategy == name], tests) for name in strategies]
    return [*found, reliability_diagram(told, tests)]


def confusion(told: list[Told], tests: list[str]) -> Drawing:
    """Draw which classes one strategy takes for which, a matrix for each test set."""
    strategy, runs = told[0].strategy, max(one.runs for one in told)
    table = confusion_table(told)
    present = [test for test in tests if (table["set"] == test).any()]

    def paint(panels: list[Axes], colours: dict[str, str]) -> None:
        shades = [colours["paper"], colours[strategy]]
        shade = mpl.colors.LinearSegmentedColormap.from_list(strategy, shades)
        for axes, test in zip(panels, present, strict=True):
            _matrix(axes, table[table["set"] == test], shade, colours)
            axes.set(title=test, xlabel="predicted class")
        panels[0].set_ylabel("true class")

    caption = (
        "Of the test structures of a class (a row) the percentage that is taken for each, and "
        "below it their number."
    )
    if runs > 1:
        caption += f" {runs} runs together: every structure counts once for each."
    title = f"Confusion matrix: {STRATEGIES[strategy]}"
    return draw(f"confusion_{strategy}", title, caption, table, paint, panels=len(present))


def _matrix(axes: Axes, table: pd.DataFrame, shade: Any, colours: dict[str, str]) -> None:
    classes = int(table["label"].max()) + 1
    fraction = table["fraction"].to_numpy().reshape(classes, classes)
    counts = table["structures"].to_numpy().reshape(classes, classes)
    axes.imshow(np.nan_to_num(fraction), cmap=shade, vmin=0, vmax=1)
    axes.grid(visible=False)
    axes.spines[:].set_visible(True)
    ticks = range(classes) if classes < CROWDED else range(0, classes, classes // 5)
    axes.set_xticks(ticks)
    axes.set_yticks(ticks)
    for row, column in np.ndindex(counts.shape) if classes < CROWDED else ():
        known = np.isfinite(fraction[row, column])
        text = f"{100 * fraction[row, column]:.0f} %\n{counts[row, column]:,}" if known else "none"
        under = _lightness(shade(fraction[row, column] if known else 0.0))
        away = {abs(_lightness(colours[name]) - under): name for name in ("ink", "paper")}
        colour = colours[away[max(away)]]
        size = min(10.0, 26 / classes)
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=size)


def _lightness(colour: Any) -> float:
    """Return the luma of a colour, 0 to 1."""
    return float(np.dot(mpl.colors.to_rgb(colour), (0.299, 0.587, 0.114)))


def reliability_diagram(told: list[Told], tests: list[str]) -> Drawing:
    """Draw how often the predicted class is right, by its probability."""
    table = reliability_table(told)
    present = [test for test in tests if (table["set"] == test).any()]
    lowest = 1 / told[0].probability.shape[1]

    def paint(panels: list[Axes], colours: dict[str, str]) -> None:
        for axes, test in zip(panels, present, strict=True):
            axes.plot([lowest, 1], [lowest, 1], color=colours["ink"], lw=1, ls=":")
            for one in (one for one in told if one.test == test):
                own = table[(table["strategy"] == one.strategy) & (table["set"] == test)]
                own = own[own["structures"] >= FEWEST]
                label = f"{one.strategy.upper()}  {ece(one.probability, one.label):.3f}"
                style = {"color": colours[one.strategy], "ls": LINES[one.strategy]}
                marker = MARKERS[one.strategy]
                axes.plot(own["confidence"], own["right"], marker=marker, label=label, **style)
            axes.set(title=test, xlim=(lowest - 0.02, 1.02), ylim=(-0.02, 1.02))
            axes.legend(title="ECE", fontsize=8, title_fontsize=8, loc="lower right")
        panels[0].set_ylabel("fraction that is right")
        panels[0].get_figure().supxlabel("probability of the predicted class", fontsize=11)

    caption = (
        "Below the dotted line the model is surer than it is right. Probabilities are those of the "
        "single runs, without calibration; bins of width 0.1, those of fewer than "
        f"{FEWEST} structures are left out. ECE: mean distance from the line, over structures."
    )
    if max(one.runs for one in told) > 1:
        caption += " The runs of a strategy are taken together."
    return draw("reliability", "Reliability", caption, table, paint, panels=len(present))
