"""The figures of a report, each in a light and a dark version, and their numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pandas as pd

from deepmd_mft.evaluation.aggregate import mean
from deepmd_mft.evaluation.folds import without_fold
from deepmd_mft.evaluation.metrics import regression
from deepmd_mft.plots.drawing import Drawing, draw
from deepmd_mft.plots.style import LINES, MARKERS, SETS
from deepmd_mft.report.distance import (
    FEWEST,
    StructuralDistances,
    by_distance,
    label_distance,
)
from deepmd_mft.report.errors import Gain, digits, gains_table, kind_of_set
from deepmd_mft.report.strategy import STRATEGIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from deepmd_mft.report.paper import Published
    from deepmd_mft.report.runs import Run

#: Lower edges of the bins of distance: of labels, and as quantiles of those of structures.
LABEL_EDGES = np.array([0, 0.5, 1, 1.5, 2, 2.5, 3, 4])
QUANTILES = (0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.97)
#: Percent that the axis of improvements shows at least: two percent are to look like two percent.
LEAST_SHOWN = 25.0


def strategies_of(runs: list[Run]) -> list[str]:
    """Return the strategies that occur, in the order of the paper."""
    return [name for name in STRATEGIES if any(run.strategy == name for run in runs)]


def largest_training(runs: list[Run]) -> list[Run]:
    """Return for each strategy its runs with the most training labels."""
    found = []
    for name in strategies_of(runs):
        own = [run for run in runs if run.strategy == name]
        most = max(run.training.labels or 0 for run in own)
        found += [run for run in own if (run.training.labels or 0) == most]
    return found


def tests_of(table: pd.DataFrame) -> list[str]:
    """Return the test sets, without their folds, in distribution first."""
    tests = list(dict.fromkeys(table["test"]))
    return sorted(tests, key=lambda name: (kind_of_set(name) != "ID", tests.index(name)))


def improvement(
    runs: list[Run], gains: list[Gain], paper: Published | None, tests: list[str]
) -> Drawing | None:
    """Relative improvement over scratch, as Fig. 2 a-c of the paper, with paired intervals."""
    if not gains:
        return None
    order = [name for name in strategies_of(runs) if any(g.strategy == name for g in gains)]
    classes = runs[0].classes
    several = any(len(gain.each) > 1 for gain in gains)
    known = {}
    if paper is not None and paper.metric == "rmse" and not classes:
        known = paper.improvements()

    def paint(axes: Axes, colours: dict[str, str]) -> None:
        width = 0.8 / len(tests)
        for gain in gains:
            shift = tests.index(gain.test)
            x = order.index(gain.strategy) + width * (shift - (len(tests) - 1) / 2)
            hatch = SETS[shift % len(SETS)][0]
            colour = colours[gain.strategy]
            face = colours["paper"] if hatch else colour
            look: dict[str, Any] = {"facecolor": face, "edgecolor": colour, "hatch": hatch}
            axes.bar(x, gain.mean, 0.9 * width, linewidth=1.5, **look)
            if np.isfinite(gain.low):
                spread = [[max(0.0, gain.mean - gain.low)], [max(0.0, gain.high - gain.mean)]]
                axes.errorbar(x, gain.mean, spread, color=colours["ink"], capsize=4, fmt="none")
            if len(gain.each) > 1:
                beside = [x + 0.18 * width] * len(gain.each)
                axes.plot(beside, gain.each, ".", color=colours["ink"], markersize=5)
            published = known.get((gain.strategy, kind_of_set(gain.test)))
            if published is not None:
                axes.plot(x, published, "_", color=colours["ink"], ms=17, mew=2)
        axes.axhline(0, color=colours["ink"], linewidth=1)
        axes.set_xticks(range(len(order)), [name.upper() for name in order])
        axes.set_xlim(-0.8, len(order) - 0.2)
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, -LEAST_SHOWN), max(high, LEAST_SHOWN))
        what = "higher accuracy than from scratch (points)"
        axes.set_ylabel(what if classes else "lower RMSE than from scratch (%)")
        axes.grid(visible=False, axis="x")
        handles = _handles(tests, colours, paper=bool(known), seeds=several)
        axes.legend(handles=handles, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))

    caption = (
        "How much better than training from scratch with as many labels, set by set; below zero "
        "it is worse. Lines: 95 % intervals, both strategies on the same bootstrap draws of test "
        "structures. After Fig. 2 a-c of MFT."
    )
    if several:
        caption += " Bars are means over runs, dots are runs."
    if known:
        caption += (
            " Dashes: the paper's values for this target, with DPA-3.1-3M and all training data."
        )
    return draw("improvement", "Improvement over scratch", caption, gains_table(gains), paint)


def _handles(tests: list[str], colours: dict[str, str], *, paper: bool, seeds: bool) -> list[Any]:
    """Return the entries of the legend of improvements."""
    ink = colours["ink"]
    hatches = [SETS[number % len(SETS)][0] for number in range(len(tests))]
    handles: list[Any] = [
        mpl.patches.Patch(
            facecolor=colours["paper"] if hatch else ink, edgecolor=ink, hatch=hatch, label=name
        )
        for name, hatch in zip(tests, hatches, strict=True)
    ]
    for wanted, label, marker, size in ((paper, "paper", "_", 14), (seeds, "one run", ".", 6)):
        if wanted:
            line = mpl.lines.Line2D([], [], color=ink, marker=marker, ls="", ms=size, mew=2)
            line.set_label(label)
            handles.append(line)
    return handles


def quality(runs: list[Run], unit: str) -> tuple[str, str]:
    """Return the metric that figures show, and what they call it."""
    return ("accuracy", "accuracy") if runs[0].classes else ("rmse", f"RMSE ({unit})")


def errors(runs: list[Run], table: pd.DataFrame, unit: str) -> Drawing:
    """RMSE, or accuracy of classes, with bootstrap intervals."""
    order, tests = strategies_of(runs), tests_of(table)
    metric, words = quality(runs, unit)

    def paint(axes: Axes, colours: dict[str, str]) -> None:
        width = 0.8 / len(tests)
        for place, name in enumerate(order):
            for shift, test in enumerate(tests):
                rows = table[(table["strategy"] == name) & (table["test"] == test)]
                middle = place + width * (shift - (len(tests) - 1) / 2)
                for number, (_, row) in enumerate(rows.iterrows()):
                    x = middle + 0.7 * width * ((number + 0.5) / len(rows) - 0.5)
                    value, low, high = (row[f"{metric}{end}"] for end in ("", "_low", "_high"))
                    spread = np.maximum(0, [[value - low], [high - value]])  # rounding
                    axes.errorbar(
                        x,
                        value,
                        None if np.isnan(spread).any() else spread,
                        color=colours[name],
                        marker=MARKERS[name],
                        markerfacecolor=colours["paper"] if shift else colours[name],
                        markersize=8 if len(rows) == 1 else 5,
                        capsize=4 if len(rows) == 1 else 2,
                    )
        axes.set_xticks(range(len(order)), [name.upper() for name in order])
        axes.set_ylim(bottom=0)
        axes.set_xlim(-0.6, len(order) - 0.4)
        axes.set_ylabel(words)
        axes.grid(visible=False, axis="x")

    caption = (
        f"{words[0].upper()}{words[1:]} by set, in this order: {', '.join(tests)}; filled markers "
        "are the first. Bars are 95 % bootstrap intervals over the test structures of one run; "
        "runs (seeds, folds) stand side by side."
    )
    numbers = table[table["strategy"].isin(order)]
    title = f"{'Accuracy' if runs[0].classes else 'Errors'} in and out of distribution"
    return draw(metric, title, caption, numbers, paint)


def parity(run: Run, unit: str, limits: tuple[float, float]) -> Drawing:
    """Prediction against label."""
    tests: dict[str, list[str]] = {}
    for name in run.sets:
        if len(run.of_set(name)):
            tests.setdefault(without_fold(name), []).append(name)

    def paint(axes: Axes, colours: dict[str, str]) -> None:
        for name in sorted(tests, key=lambda one: kind_of_set(one) == "ID"):
            parts = [run.values(one) for one in tests[name]]
            prediction, label = (np.concatenate(one) for one in zip(*parts, strict=True))
            inside = kind_of_set(name) == "ID"
            rmse = digits(regression(prediction, label)["rmse"], len(label))
            axes.plot(
                label,
                prediction,
                "o" if inside else "x",
                color=colours[run.strategy] if inside else colours["ink"],
                markersize=3 if inside else 3.5,
                alpha=0.65 if inside else 0.45,
                label=f"{name}, RMSE {rmse}",
                rasterized=True,
            )
        axes.plot(limits, limits, "-", color=colours["ink"], linewidth=1)
        axes.set(xlim=limits, ylim=limits, aspect="equal")
        axes.set_xlabel(f"label ({unit})")
        axes.set_ylabel(f"prediction ({unit})")
        axes.legend(loc="upper left", markerscale=2, fontsize=9, handletextpad=0.2)

    columns = ["set", "id", "formula", "natoms", "label", "prediction"]
    numbers = run.predictions[columns]
    title = f"Prediction and label: {STRATEGIES[run.strategy]}"
    caption = f"{run.folder.name}: every test structure; on the line the two are equal."
    return draw(f"parity_{run.folder.name}", title, caption, numbers, paint)


def distances(runs: list[Run], unit: str) -> list[Drawing]:
    """RMSE by the distance from the training data, of the label and of the structure.

    Of classes: the fraction that is wrong, by the distance of the structure.
    """
    classes = runs[0].classes
    words = "fraction of wrong classes" if classes else f"RMSE ({unit})"
    structural = StructuralDistances()
    of_structures = [structural.of(run) for run in runs]
    pooled = [one for one in of_structures if one is not None]
    edges = np.unique(np.quantile(np.concatenate(pooled), QUANTILES)) if pooled else np.array([])
    of_labels = [None if classes else label_distance(run) for run in runs]
    of_label = by_distance(runs, of_labels, LABEL_EDGES)
    of_structure = by_distance(runs, of_structures, edges)
    found = [
        _distance_figure(
            of_label,
            ("distance_label", "Error by distance of the label"),
            ("distance from the training mean (training std)", words),
            "how far their label lies from the mean of the training labels, in standard "
            "deviations of these",
        ),
        _distance_figure(
            of_structure,
            ("distance_structure", "Error by distance of the structure"),
            ("distance to training (its own median = 1)", words),
            "how far their radial distribution, told apart by pairs of elements, lies from that "
            "of the nearest training structure; 1 is the median among training structures",
        ),
    ]
    return [drawing for drawing in found if drawing is not None]


def _distance_figure(
    numbers: pd.DataFrame, name: tuple[str, str], labels: tuple[str, str], distance: str
) -> Drawing | None:
    if numbers.empty:
        return None

    def paint(axes: Axes, colours: dict[str, str]) -> None:
        for strategy in [one for one in STRATEGIES if (numbers["strategy"] == one).any()]:
            own = numbers[numbers["strategy"] == strategy].groupby("distance_from")
            middle = own[["mean_distance", numbers.columns[-1]]].agg(mean)
            axes.plot(
                middle["mean_distance"],
                middle.iloc[:, 1],
                color=colours[strategy],
                marker=MARKERS[strategy],
                markersize=5,
                label=strategy.upper(),
            )
        axes.set(xlabel=labels[0], ylabel=labels[1])
        axes.set_ylim(bottom=0)
        axes.legend()

    caption = (
        f"All test structures, ID and OOD together, by {distance}. Bins of fewer than "
        f"{FEWEST} structures are left out."
    )
    if numbers.duplicated(["strategy", "distance_from"]).any():
        caption += " Means over runs."
    return draw(*name, caption, numbers, paint)


def learning_curves(runs: list[Run], unit: str) -> list[Drawing]:
    """Draw the validation errors of the property branch and, with MFT, of the force-field one."""
    found = []
    table = _curves(runs, forces=False)
    if table is not None:
        words = _of_curve(str(table["column"].iloc[0]), unit, intensive=runs[0].intensive)
        name = ("learning_property", "Learning curve: property branch")
        found.append(_curve_figure(runs, table, name, ("steps of the property branch", words)))
    table = _curves(runs, forces=True)
    if table is not None:
        name = ("learning_forces", "Learning curve: force-field branch")
        words = "validation force RMSE (eV/Å)"
        found.append(_curve_figure(runs, table, name, ("steps of the property branch", words)))
    return found


#: Columns of ``lcurve.out`` that the learning curve of a property may show, the preferred first.
CURVES = ("rmse", "mae", "cross_entropy", "accuracy")


def _of_curve(column: str, unit: str, *, intensive: bool) -> str:
    """Say what a column is; of a property that is not intensive losses are per atom."""
    if column.startswith(("rmse", "mae")):
        return f"validation error ({unit}{'' if intensive else ' per atom'})"
    return f"validation {column.partition('_val')[0].replace('_', ' ')}"


def _curves(runs: list[Run], *, forces: bool) -> pd.DataFrame | None:
    """Return the learning curves of the runs, all of the same quantity."""
    shown: list[tuple[Run, dict[str, str]]] = []
    for run in runs:
        own = f"_{run.branch}" if run.branch else ""
        if forces:
            others = [
                c for c in run.curve if c.startswith("rmse_f_val") and c != f"rmse_f_val{own}"
            ]
            columns = {"rmse_f": others[0]} if others else {}
        else:
            # a head of several properties, or whose labels may be missing, says which it is
            ends = (f"_{run.property_name}_val{own}", f"_val{own}")
            columns = {n: n + end for n in CURVES for end in ends if n + end in run.curve}
        if columns and np.isfinite(run.share):
            shown.append((run, columns))
    common = [name for name in ("rmse_f", *CURVES) if all(name in found for _, found in shown)]
    if not shown or not common:
        return None
    parts = [
        {
            "run": run.folder.name,
            "strategy": run.strategy,
            "step": run.curve["step"] * run.share,
            "column": columns[common[0]],
            "error": run.curve[columns[common[0]]],
        }
        for run, columns in shown
    ]
    return pd.concat([pd.DataFrame(part) for part in parts])


def _curve_figure(
    runs: list[Run], numbers: pd.DataFrame, name: tuple[str, str], labels: tuple[str, str]
) -> Drawing:
    logarithmic = not labels[1].endswith("accuracy")

    def paint(axes: Axes, colours: dict[str, str]) -> None:
        for strategy in strategies_of(runs):
            curves = [own for _, own in numbers[numbers["strategy"] == strategy].groupby("run")]
            for number, own in enumerate(curves):
                if len(curves) == 1:
                    axes.plot(own["step"], own["error"], color=colours[strategy], alpha=0.25, lw=1)
                smooth = own["error"].rolling(5, min_periods=1).mean()
                label = strategy.upper() if number == 0 else None
                style = {"color": colours[strategy], "ls": LINES[strategy], "lw": 2}
                axes.plot(own["step"], smooth, label=label, **style)
        axes.set(xlabel=labels[0], ylabel=labels[1])
        if logarithmic:
            axes.set_yscale("log")
            _plain_logarithmic(axes)
        axes.legend()

    caption = (
        f"From lcurve.out{', logarithmic scale' if logarithmic else ''}: the mean of the last five "
        "validation batches, one line per run (thin: single batches, if there is one run of a "
        "strategy). dp-mft select evaluates the whole validation set instead."
    )
    return draw(*name, caption, numbers, paint)


def _plain_logarithmic(axes: Axes) -> None:
    """Label a logarithmic y axis with plain numbers."""
    axes.yaxis.set_minor_locator(mpl.ticker.LogLocator(subs=(2, 3, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.tick_params(axis="y", which="minor", labelsize=9)


def few_shot(runs: list[Run], table: pd.DataFrame, unit: str) -> Drawing | None:
    """RMSE, or accuracy of classes, by number of training labels, if the runs have several."""
    metric, words = quality(runs, unit)
    table = table[table["strategy"].isin(strategies_of(runs)) & (table["labels"] > 0)]
    if table["labels"].nunique() < 2:
        return None
    tests = tests_of(table)

    def paint(axes: Axes, colours: dict[str, str]) -> None:
        for name in strategies_of(runs):
            for number, test in enumerate(tests):
                own = table[(table["strategy"] == name) & (table["test"] == test)]
                middle = own.groupby("labels")[metric].agg(mean)
                axes.plot(
                    middle.index,
                    middle,
                    SETS[number % len(SETS)][1],
                    color=colours[name],
                    marker=MARKERS[name],
                    label=f"{name.upper()} {test}",
                )
                axes.plot(own["labels"], own[metric], ".", color=colours[name], markersize=4)
        axes.set(xscale="log", xlabel="training labels", ylabel=words)
        ticks = sorted(table["labels"].unique())
        axes.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
        axes.minorticks_off()
        if metric == "rmse":
            axes.set_yscale("log")
            _plain_logarithmic(axes)
        axes.legend(ncols=2, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0))

    caption = (
        f"{words[0].upper()}{words[1:]} by number of training labels, means over runs (seeds, "
        f"folds) of a set: {', '.join(tests)} as full, dashed, dotted lines; dots are runs. "
        f"{'Both axes are' if metric == 'rmse' else 'The number of labels is'} logarithmic."
    )
    columns = ["run", "strategy", "set", "test", "labels", metric]
    return draw("few_shot", "Few-shot curves", caption, table[columns], paint)
