"""The figures of a report, each in a light and a dark version, and their numbers.

Colours are those of Okabe and Ito, told apart by readers with any colour vision; markers and
hatches repeat what the colours say.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from deepmd_mft.report.distance import (
    FEWEST,
    StructuralDistances,
    by_distance,
    label_distance,
)
from deepmd_mft.report.runs import STRATEGIES, Run

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes

    from deepmd_mft.report.paper import Published

COLOURS = {
    "light": {"scratch": "#6b6b6b", "ft": "#d55e00", "lp": "#009e73", "mft": "#0072b2"},
    "dark": {"scratch": "#b0b0b0", "ft": "#ff8f4d", "lp": "#35c796", "mft": "#56b4e9"},
}
INK = {"light": ("#ffffff", "#1c1c1c", "#d8d8d8"), "dark": ("#1b1e23", "#e6e6e6", "#41464e")}
LINES = {"scratch": ":", "ft": "-", "lp": "-.", "mft": "-"}
MARKERS = {"scratch": "s", "ft": "o", "lp": "^", "mft": "D"}
WIDTH, HEIGHT = 5.4, 3.9
#: Lower edges of the bins of distance: of labels, and as quantiles of those of structures.
LABEL_EDGES = np.array([0, 0.5, 1, 1.5, 2, 2.5, 3, 4])
QUANTILES = (0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.97)


@dataclass(frozen=True)
class Drawing:
    """A figure: file name, title, caption, numbers, and PNG images by theme."""

    name: str
    title: str
    caption: str
    numbers: pd.DataFrame
    images: dict[str, bytes]

    def data_url(self, theme: str) -> str:
        """Return an image as the page embeds it."""
        return "data:image/png;base64," + base64.b64encode(self.images[theme]).decode()


def _draw(
    name: str,
    title: str,
    caption: str,
    numbers: pd.DataFrame,
    paint: Callable[[Axes, dict[str, str]], None],
) -> Drawing:
    images = {}
    for theme, (paper, ink, grid) in INK.items():
        style: dict[str, Any] = {
            "figure.facecolor": paper,
            "axes.facecolor": paper,
            "savefig.facecolor": paper,
            "text.color": ink,
            "axes.edgecolor": ink,
            "axes.labelcolor": ink,
            "xtick.color": ink,
            "ytick.color": ink,
            "grid.color": grid,
            "font.size": 11,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "legend.frameon": False,
            "hatch.linewidth": 1.2,
        }
        with mpl.rc_context(style):
            figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
            axes = figure.add_subplot()
            axes.grid(visible=True, linewidth=0.6)
            axes.set_axisbelow(True)
            paint(axes, {**COLOURS[theme], "ink": ink, "paper": paper})
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=170)
        images[theme] = buffer.getvalue()
    return Drawing(name, title, caption, numbers, images)


def kind_of_set(name: str) -> str:
    """Return ID or OOD by the name of a set, or the name itself."""
    return next((kind.upper() for kind in ("ood", "id") if name.startswith(kind)), name)


def strategies_of(runs: list[Run]) -> list[str]:
    """Return the strategies that occur, in the order of the paper."""
    return [name for name in STRATEGIES if any(run.strategy == name for run in runs)]


def largest_training(runs: list[Run]) -> list[Run]:
    """Return for each strategy its runs with the most training labels."""
    found = []
    for name in strategies_of(runs):
        own = [run for run in runs if run.strategy == name]
        most = max(len(run.train_labels) for run in own)
        found += [run for run in own if len(run.train_labels) == most]
    return found


def first_of_each(runs: list[Run]) -> list[Run]:
    """Return one run of each strategy, the first."""
    return [next(run for run in runs if run.strategy == name) for name in strategies_of(runs)]


def improvement(runs: list[Run], table: pd.DataFrame, paper: Published | None) -> Drawing | None:
    """Relative improvement over scratch, as Fig. 2 a-c of the paper."""
    part = table[(table["strategy"] != "scratch") & table["improvement_percent"].notna()]
    if part.empty:
        return None
    order = [name for name in strategies_of(runs) if name != "scratch"]
    kinds = [k for k in ("ID", "OOD") if (part["kind"] == k).any()]
    several = part.duplicated(["strategy", "kind"]).any()
    known = paper.improvements() if paper is not None and paper.metric == "rmse" else {}

    def paint(axes: Axes, colours: dict[str, str]) -> None:
        for shift, kind in enumerate(kinds):
            for place, name in enumerate(order):
                rows = part[(part["strategy"] == name) & (part["kind"] == kind)]
                gains = rows["improvement_percent"]
                x = place + 0.4 * (shift - (len(kinds) - 1) / 2)
                axes.bar(
                    x,
                    gains.mean(),
                    0.36,
                    facecolor=colours[name] if kind == "ID" else colours["paper"],
                    edgecolor=colours[name],
                    hatch="" if kind == "ID" else "////",
                    linewidth=1.5,
                )
                if len(gains) > 1:
                    axes.plot([x] * len(gains), gains, "o", color=colours["ink"], markersize=4)
                if (name, kind) in known:
                    axes.plot(x, known[name, kind], "_", color=colours["ink"], ms=17, mew=2)
        axes.axhline(0, color=colours["ink"], linewidth=1)
        axes.set_xticks(range(len(order)), [name.upper() for name in order])
        axes.set_ylabel("lower RMSE than from scratch (%)")
        axes.grid(visible=False, axis="x")
        handles = _handles(kinds, colours, paper=bool(known), seeds=bool(several))
        axes.legend(handles=handles, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))

    caption = (
        "How much lower the RMSE is than that of training from scratch with as many labels, in "
        "distribution (filled) and out of distribution (hatched); below zero it is worse. After "
        "Fig. 2 a-c of MFT."
    )
    if several:
        caption += " Bars are means over seeds, dots are seeds."
    if known:
        caption += (
            " Dashes: the paper's values for this target, with DPA-3.1-3M and all training data."
        )
    return _draw("improvement", "Improvement over scratch", caption, part, paint)


def _handles(kinds: list[str], colours: dict[str, str], *, paper: bool, seeds: bool) -> list[Any]:
    """Return the entries of the legend of improvements."""
    ink = colours["ink"]
    handles: list[Any] = [
        mpl.patches.Patch(
            facecolor=ink if kind == "ID" else colours["paper"],
            edgecolor=ink,
            hatch="" if kind == "ID" else "////",
            label=kind,
        )
        for kind in kinds
    ]
    for wanted, label, marker, size in ((paper, "paper", "_", 14), (seeds, "one seed", "o", 4)):
        if wanted:
            line = mpl.lines.Line2D([], [], color=ink, marker=marker, ls="", ms=size, mew=2)
            line.set_label(label)
            handles.append(line)
    return handles


def errors(runs: list[Run], table: pd.DataFrame, unit: str) -> Drawing:
    """RMSE with bootstrap intervals."""
    order, kinds = strategies_of(runs), list(dict.fromkeys(table["kind"]))

    def paint(axes: Axes, colours: dict[str, str]) -> None:
        for place, name in enumerate(order):
            for shift, kind in enumerate(kinds):
                rows = table[(table["strategy"] == name) & (table["kind"] == kind)]
                for number, (_, row) in enumerate(rows.iterrows()):
                    x = place + 0.36 * (shift - (len(kinds) - 1) / 2)
                    x += 0.24 * ((number + 0.5) / len(rows) - 0.5)  # seeds beside each other
                    spread = [[row.rmse - row.rmse_low], [row.rmse_high - row.rmse]]
                    axes.errorbar(
                        x,
                        row.rmse,
                        spread,
                        color=colours[name],
                        marker=MARKERS[name],
                        markerfacecolor=colours[name] if kind == "ID" else colours["paper"],
                        markersize=8 if len(rows) == 1 else 5,
                        capsize=4 if len(rows) == 1 else 2,
                    )
        axes.set_xticks(range(len(order)), [name.upper() for name in order])
        axes.set_ylim(bottom=0)
        axes.set_xlim(-0.6, len(order) - 0.4)
        axes.set_ylabel(f"RMSE ({unit})")
        axes.grid(visible=False, axis="x")

    caption = (
        f"Root mean square error by set, in this order: {', '.join(kinds)}; filled markers are ID. "
        "Bars are 95 % bootstrap intervals over the test structures of one run; seeds stand side "
        "by side."
    )
    return _draw("rmse", "Errors in and out of distribution", caption, table, paint)


def parity(run: Run, unit: str, limits: tuple[float, float]) -> Drawing:
    """Prediction against label."""
    names = [name for name in run.record["sets"] if len(run.of_set(name))]

    def paint(axes: Axes, colours: dict[str, str]) -> None:
        for name in sorted(names, key=kind_of_set, reverse=True):
            part, inside = run.of_set(name), kind_of_set(name) == "ID"
            axes.plot(
                part["label"],
                part["prediction"],
                "o" if inside else "x",
                color=colours[run.strategy] if inside else colours["ink"],
                markersize=3 if inside else 3.5,
                alpha=0.65 if inside else 0.45,
                label=f"{kind_of_set(name)}, RMSE {run.errors(name)['rmse']:.4f}",
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
    return _draw(f"parity_{run.folder.name}", title, caption, numbers, paint)


def distances(runs: list[Run], unit: str) -> list[Drawing]:
    """RMSE by the distance from the training data, of the label and of the structure."""
    structural = StructuralDistances()
    of_structures = [structural.of(run) for run in runs]
    pooled = [one for one in of_structures if one is not None]
    edges = np.unique(np.quantile(np.concatenate(pooled), QUANTILES)) if pooled else np.array([])
    of_label = by_distance(runs, [label_distance(run) for run in runs], LABEL_EDGES)
    of_structure = by_distance(runs, of_structures, edges)
    found = [
        _distance_figure(
            of_label,
            ("distance_label", "Error by distance of the label"),
            ("distance from the training mean (training std)", f"RMSE ({unit})"),
            "how far their label lies from the mean of the training labels, in standard "
            "deviations of these",
        ),
        _distance_figure(
            of_structure,
            ("distance_structure", "Error by distance of the structure"),
            ("distance to training (its own median = 1)", f"RMSE ({unit})"),
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
            mean = own[["mean_distance", "rmse"]].mean()
            axes.plot(
                mean["mean_distance"],
                mean["rmse"],
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
        caption += " Means over seeds."
    return _draw(*name, caption, numbers, paint)


def learning_curves(runs: list[Run], unit: str) -> list[Drawing]:
    """Draw the validation errors of the property branch and, with MFT, of the force-field one."""
    found = []
    table = _curves(runs, forces=False)
    if table is not None:
        found.append(
            _curve_figure(
                runs,
                table,
                ("learning_property", "Learning curve: property branch"),
                ("steps of the property branch", f"validation error ({unit})"),
            )
        )
    table = _curves(runs, forces=True)
    if table is not None:
        found.append(
            _curve_figure(
                runs,
                table,
                ("learning_forces", "Learning curve: force-field branch"),
                ("steps of the property branch", "validation force RMSE (eV/Å)"),
            )
        )
    return found


def _curves(runs: list[Run], *, forces: bool) -> pd.DataFrame | None:
    parts = []
    for run in runs:
        if run.curve.empty:
            continue
        own = f"_{run.head}" if run.head else ""
        wanted = (
            [c for c in run.curve if c.startswith("rmse_f_val") and c != f"rmse_f_val{own}"]
            if forces
            else [c for c in (f"rmse_val{own}", f"mae_val{own}") if c in run.curve]
        )
        if wanted:
            parts.append(
                pd.DataFrame(
                    {
                        "run": run.folder.name,
                        "strategy": run.strategy,
                        "step": run.curve["step"] * run.share,
                        "column": wanted[0],
                        "error": run.curve[wanted[0]],
                    }
                )
            )
    return pd.concat(parts) if parts else None


def _curve_figure(
    runs: list[Run], numbers: pd.DataFrame, name: tuple[str, str], labels: tuple[str, str]
) -> Drawing:
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
        axes.set(xlabel=labels[0], ylabel=labels[1], yscale="log")
        _plain_logarithmic(axes)
        axes.legend()

    caption = (
        "From lcurve.out, logarithmic scale: the mean of the last five validation batches, a line "
        "a run (thin: single batches, if there is one run of a strategy). dp-mft select evaluates "
        "the whole validation set instead."
    )
    return _draw(*name, caption, numbers, paint)


def _plain_logarithmic(axes: Axes) -> None:
    """Label a logarithmic y axis with plain numbers."""
    axes.yaxis.set_minor_locator(mpl.ticker.LogLocator(subs=(2, 3, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.tick_params(axis="y", which="minor", labelsize=9)


def few_shot(runs: list[Run], table: pd.DataFrame, unit: str) -> Drawing | None:
    """RMSE by number of training labels, if the runs have several."""
    if table["labels"].nunique() < 2:
        return None

    def paint(axes: Axes, colours: dict[str, str]) -> None:
        for name in strategies_of(runs):
            for kind, style in (("ID", "-"), ("OOD", "--")):
                own = table[(table["strategy"] == name) & (table["kind"] == kind)]
                mean = own.groupby("labels")["rmse"].mean()
                axes.plot(
                    mean.index,
                    mean,
                    style,
                    color=colours[name],
                    marker=MARKERS[name],
                    label=f"{name.upper()} {kind}",
                )
                axes.plot(own["labels"], own["rmse"], ".", color=colours[name], markersize=4)
        axes.set(xscale="log", yscale="log", xlabel="training labels", ylabel=f"RMSE ({unit})")
        ticks = sorted(table["labels"].unique())
        axes.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
        axes.minorticks_off()
        _plain_logarithmic(axes)
        axes.legend(ncols=4, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0))

    caption = (
        "Test error by number of training labels: ID full, OOD dashed lines, means over seeds; "
        "dots are seeds. Both axes logarithmic."
    )
    columns = ["run", "strategy", "kind", "labels", "rmse"]
    return _draw("few_shot", "Few-shot curves", caption, table[columns], paint)
