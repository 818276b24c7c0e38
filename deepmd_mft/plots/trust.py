"""Figures of how far calibrated ensembles can be believed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.metrics import roc_curve

from deepmd_mft.plots.drawing import Drawing, draw
from deepmd_mft.plots.style import COLOURS, LINES, MARKERS
from deepmd_mft.report.strategy import STRATEGIES
from deepmd_mft.uncertainty.score import (
    auroc,
    binned_errors,
    ence,
    miscalibration_area,
    observed_coverage,
    sparsification,
)
from deepmd_mft.uncertainty.tables import INSIDE

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes

    from deepmd_mft.report.trust import Trust

#: Points of a curve, from 0 to 1.
GRID = np.linspace(0, 1, 101)


def trust_figures(found: list[Trust], tests: list[str], unit: str) -> list[Drawing]:
    """Return three figures for each standard deviation, and one for each ensemble.

    Parameters
    ----------
    found : list of Trust
    tests : list of str
        Test sets in order.
    unit : str
        Of the property.
    """
    drawings = []
    for std in dict.fromkeys(name for one in found for name in one.stds):
        own = [one for one in found if std in one.stds]
        drawings += [figure(own, std, tests, unit) for figure in (sparsified, calibrated, binned)]
    return [*drawings, *(told for one in found for told in telling(one, tests, found))]


def _label(one: Trust, found: list[Trust]) -> str:
    alike = [other for other in found if other.strategy == one.strategy]
    return one.strategy.upper() + (f" {one.labels}" if len(alike) > 1 else "")


def _table(
    found: list[Trust],
    std: str,
    tests: list[str],
    curve: Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]],
) -> pd.DataFrame:
    """Return a curve of errors and std for each ensemble and set."""
    parts = []
    for number, one in enumerate(found):
        for test in (test for test in tests if test in one.tests):
            part = pd.DataFrame(curve(*one.errors(test, std)))
            keys = {"ensemble": number, "strategy": one.strategy, "runs": " ".join(one.runs)}
            parts.append(part.assign(**keys, set=test, std_name=std))
    return pd.concat(parts, ignore_index=True)


def _of(table: pd.DataFrame, number: int, test: str) -> pd.DataFrame:
    return table[(table["ensemble"] == number) & (table["set"] == test)]


def _present(table: pd.DataFrame, tests: list[str]) -> list[str]:
    return [test for test in tests if (table["set"] == test).any()]


def sparsified(found: list[Trust], std: str, tests: list[str], unit: str) -> Drawing:
    """Draw the RMSE of what is left when the least certain structures are taken away."""

    def curve(error: np.ndarray, sigma: np.ndarray) -> dict[str, np.ndarray]:
        by_std, by_error = (sparsification(error, by) for by in (sigma, np.abs(error)))
        return {"taken": by_std[:, 0], "rmse": by_std[:, 1], "rmse_oracle": by_error[:, 1]}

    table = _table(found, std, tests, curve)
    present = _present(table, tests)

    def paint(panels: list[Axes], colours: dict[str, str]) -> None:
        for axes, test in zip(panels, present, strict=True):
            for number, one in enumerate(found):
                own, colour = _of(table, number, test), colours[one.strategy]
                taken = 100 * own["taken"]
                axes.plot(taken, own["rmse"], color=colour, lw=2, label=_label(one, found))
                axes.plot(taken, own["rmse_oracle"], color=colour, lw=1, ls=":")
            axes.set(title=test, xlim=(0, 100))
            axes.set_ylim(bottom=0)
        panels[0].set_ylabel(f"RMSE of the rest ({unit})")
        panels[0].legend(fontsize=9)
        panels[0].get_figure().supxlabel("structures taken away (%)", fontsize=11)

    caption = (
        f"The structures of largest std ({std}) are taken away first. Dotted: those of largest "
        "error are, which no std can beat; a line that does not fall is of a std that knows "
        "nothing of the error."
    )
    name, title = f"sparsification_{std}", f"Sparsification: {std}"
    return draw(name, title, caption, table, paint, panels=len(present))


def calibrated(found: list[Trust], std: str, tests: list[str], _unit: str) -> Drawing:
    """Draw how many labels lie in central intervals, by how many should."""

    def curve(error: np.ndarray, sigma: np.ndarray) -> dict[str, np.ndarray]:
        return {"expected": GRID, "observed": observed_coverage(error, sigma, GRID)}

    table = _table(found, std, tests, curve)
    present = _present(table, tests)

    def paint(panels: list[Axes], colours: dict[str, str]) -> None:
        for axes, test in zip(panels, present, strict=True):
            axes.plot([0, 1], [0, 1], color=colours["ink"], lw=1, ls=":")
            for number, one in enumerate(found):
                own = _of(table, number, test)
                area = miscalibration_area(*one.errors(test, std))
                look = {"color": colours[one.strategy], "ls": LINES[one.strategy], "lw": 2}
                label = f"{_label(one, found)}  {area:.3f}"
                axes.plot(own["expected"], own["observed"], label=label, **look)
            axes.set(title=test, xlim=(0, 1), ylim=(0, 1), aspect="equal")
            axes.legend(title="area", fontsize=8, title_fontsize=8)
        panels[0].set_ylabel("observed coverage")
        panels[0].get_figure().supxlabel("expected coverage", fontsize=11)

    caption = (
        f"Central intervals of a normal distribution with the calibrated std ({std}): the "
        "fraction of labels inside, by the fraction that should be. Below the dotted line "
        "intervals are too narrow. Area: between line and dotted line."
    )
    name, title = f"calibration_{std}", f"Coverage: {std}"
    return draw(name, title, caption, table, paint, panels=len(present))


def binned(found: list[Trust], std: str, tests: list[str], unit: str) -> Drawing:
    """Draw the error by std, in bins of equal size."""

    def curve(error: np.ndarray, sigma: np.ndarray) -> dict[str, np.ndarray]:
        expected, observed = binned_errors(error, sigma).T
        return {"std": expected, "rmse": observed}

    table = _table(found, std, tests, curve)
    present = _present(table, tests)

    def paint(panels: list[Axes], colours: dict[str, str]) -> None:
        for axes, test in zip(panels, present, strict=True):
            part = table[table["set"] == test]
            ends = [0.9 * part["std"].min(), 1.1 * part["std"].max()]
            axes.plot(ends, ends, color=colours["ink"], lw=1, ls=":")
            for number, one in enumerate(found):
                own = _of(table, number, test)
                look = {"color": colours[one.strategy], "marker": MARKERS[one.strategy]}
                label = f"{_label(one, found)}  {ence(*one.errors(test, std)):.2f}"
                axes.plot(own["std"], own["rmse"], label=label, markersize=5, **look)
            axes.set(title=test)
            axes.set_ylim(0, 1.35 * max(part["rmse"].max(), ends[1]))
            axes.legend(title="ENCE", fontsize=8, title_fontsize=8, loc="upper left")
        panels[0].set_ylabel(f"RMSE ({unit})")
        panels[0].get_figure().supxlabel(f"std ({unit})", fontsize=11)

    caption = (
        f"Ten bins of as many structures each by the calibrated std ({std}): on the dotted line "
        "errors are what std says, above it larger. ENCE: mean distance from it, relative to std."
    )
    name, title = f"error_by_std_{std}", f"Error by std: {std}"
    return draw(name, title, caption, table, paint, panels=len(present))


def telling(one: Trust, tests: list[str], found: list[Trust]) -> list[Drawing]:
    """Draw how well each score tells the other sets from ``id_test``; nothing without one."""
    outside = [test for test in tests if test in one.tests and test != INSIDE]
    if INSIDE not in one.tests or not outside:
        return []
    inside = one.scores_of(INSIDE)
    parts, areas = [], {}
    for test in outside:
        for name, values in one.scores_of(test).items():
            truth = np.r_[np.zeros(len(inside[name])), np.ones(len(values))]
            false, true, _ = roc_curve(truth, np.r_[inside[name], values])
            curve = {"set": test, "score": name, "inside": GRID}
            parts.append(pd.DataFrame({**curve, "outside": np.interp(GRID, false, true)}))
            areas[test, name] = auroc(inside[name], values)
    table = pd.concat(parts, ignore_index=True)

    def paint(panels: list[Axes], colours: dict[str, str]) -> None:
        for axes, test in zip(panels, outside, strict=True):
            axes.plot([0, 1], [0, 1], color=colours["ink"], lw=1, ls=":")
            for name, colour in zip(inside, COLOURS, strict=False):
                own = table[(table["set"] == test) & (table["score"] == name)]
                dashed = "--" if f"std_{name}" in one.estimates else "-"
                label = f"{name}  {areas[test, name]:.2f}"
                axes.plot(own["inside"], own["outside"], color=colour, ls=dashed, label=label)
            axes.set(title=test, xlim=(0, 1), ylim=(0, 1), aspect="equal")
            axes.legend(title="AUROC", fontsize=8, title_fontsize=8, loc="lower right")
        panels[0].set_ylabel("fraction found of the set")
        panels[0].get_figure().supxlabel(f"fraction taken wrongly of {INSIDE}", fontsize=11)

    alone = _label(one, found) == one.strategy.upper()
    name = "_".join(["telling", one.strategy, *([] if alone else one.runs)])
    caption = (
        f"How well a score tells a set from {INSIDE}, {STRATEGIES[one.strategy]}: on the dotted "
        "line it is chance. Dashed: standard deviations, full lines: distances from the "
        "training set."
    )
    title = f"Out of distribution or not: {_label(one, found)}"
    return [draw(name, title, caption, table, paint, panels=len(outside))]
