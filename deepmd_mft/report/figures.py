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

from deepmd_mft.report.runs import STRATEGIES, Run

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes

COLOURS = {
    "light": {"scratch": "#6b6b6b", "ft": "#d55e00", "lp": "#b58900", "mft": "#0072b2"},
    "dark": {"scratch": "#b0b0b0", "ft": "#ff8f4d", "lp": "#e69f00", "mft": "#56b4e9"},
}
INK = {"light": ("#ffffff", "#1c1c1c", "#d8d8d8"), "dark": ("#1b1e23", "#e6e6e6", "#41464e")}
MARKERS = {"scratch": "s", "ft": "o", "lp": "^", "mft": "D"}
#: RMSE in Hartree on BOOM's split of the QM9 gap with DPA-3.1-3M (MFT, arXiv 2601.08486).
PAPER = {
    "gap": {
        "scratch": (0.0045, 0.0244),
        "lp": (0.0077, 0.0193),
        "ft": (0.0034, 0.0201),
        "mft": (0.0034, 0.0171),
    }
}
WIDTH, HEIGHT = 5.4, 3.9


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


def improvement(runs: list[Run], table: pd.DataFrame) -> Drawing | None:
    """Relative improvement over scratch, as Fig. 2 a-c of the paper."""
    part = table[(table["strategy"] != "scratch") & table["improvement_percent"].notna()]
    if part.empty:
        return None
    paper = PAPER.get(runs[0].property_name)
    order = [name for name in strategies_of(runs) if name != "scratch"]
    kinds = [k for k in ("ID", "OOD") if (part["kind"] == k).any()]

    def paint(axes: Axes, colours: dict[str, str]) -> None:
        for shift, kind in enumerate(kinds):
            for place, name in enumerate(order):
                row = part[(part["strategy"] == name) & (part["kind"] == kind)]
                x = place + 0.4 * (shift - (len(kinds) - 1) / 2)
                axes.bar(
                    x,
                    row["improvement_percent"].mean(),
                    0.36,
                    facecolor=colours[name] if kind == "ID" else colours["paper"],
                    edgecolor=colours[name],
                    hatch="" if kind == "ID" else "////",
                    linewidth=1.5,
                )
                if paper:
                    index = 0 if kind == "ID" else 1
                    published = 100 * (1 - paper[name][index] / paper["scratch"][index])
                    axes.plot(x, published, "_", color=colours["ink"], markersize=17, mew=2)
        axes.axhline(0, color=colours["ink"], linewidth=1)
        axes.set_xticks(range(len(order)), [name.upper() for name in order])
        axes.set_ylabel("lower RMSE than from scratch (%)")
        axes.grid(visible=False, axis="x")
        handles = [
            mpl.patches.Patch(
                facecolor=colours["ink"] if kind == "ID" else colours["paper"],
                edgecolor=colours["ink"],
                hatch="" if kind == "ID" else "////",
                label=kind,
            )
            for kind in kinds
        ]
        if paper:
            handles.append(
                mpl.lines.Line2D(
                    [],
                    [],
                    color=colours["ink"],
                    marker="_",
                    ls="",
                    markersize=14,
                    mew=2,
                    label="paper",
                )
            )
        axes.legend(handles=handles, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))

    caption = (
        "How much lower the RMSE is than that of training from scratch, in distribution (filled) "
        "and out of distribution (hatched); below zero it is worse. After Fig. 2 a-c of MFT."
    )
    if paper:
        caption += (
            " Dashes: the paper's values for this target, with DPA-3.1-3M and all training data."
        )
    return _draw("improvement", "Improvement over scratch", caption, part, paint)


def errors(runs: list[Run], table: pd.DataFrame, unit: str) -> Drawing:
    """RMSE with bootstrap intervals."""
    order, kinds = strategies_of(runs), list(dict.fromkeys(table["kind"]))

    def paint(axes: Axes, colours: dict[str, str]) -> None:
        for place, name in enumerate(order):
            for shift, kind in enumerate(kinds):
                rows = table[(table["strategy"] == name) & (table["kind"] == kind)]
                for _, row in rows.iterrows():
                    x = place + 0.3 * (shift - (len(kinds) - 1) / 2)
                    spread = [[row.rmse - row.rmse_low], [row.rmse_high - row.rmse]]
                    axes.errorbar(
                        x,
                        row.rmse,
                        spread,
                        color=colours[name],
                        marker=MARKERS[name],
                        markerfacecolor=colours[name] if kind == "ID" else colours["paper"],
                        markersize=8,
                        capsize=4,
                    )
        axes.set_xticks(range(len(order)), [name.upper() for name in order])
        axes.set_ylim(bottom=0)
        axes.set_xlim(-0.6, len(order) - 0.4)
        axes.set_ylabel(f"RMSE ({unit})")
        axes.grid(visible=False, axis="x")

    caption = (
        f"Root mean square error by set, in this order: {', '.join(kinds)}; filled markers are ID. "
        "Bars are 95 % bootstrap intervals over the test structures of one run, not over seeds."
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


def by_distance(runs: list[Run], unit: str) -> Drawing | None:
    """RMSE by the distance of the label from the training labels."""
    rows = []
    for run in runs:
        if len(run.train_labels) < 2 or not run.train_labels.std():
            continue
        part = run.predictions[np.isfinite(run.predictions["label"])]
        far = np.abs(part["label"] - run.train_labels.mean()) / run.train_labels.std()
        edges = np.array([0, 0.5, 1, 1.5, 2, 2.5, 3, 4, np.inf])
        for number in range(len(edges) - 1):
            inside = (far >= edges[number]) & (far < edges[number + 1])
            if inside.sum() < 10:
                continue
            error = part["prediction"][inside] - part["label"][inside]
            rows.append(
                {
                    "run": run.folder.name,
                    "strategy": run.strategy,
                    "distance_from": edges[number],
                    "distance_to": edges[number + 1],
                    "mean_distance": far[inside].mean(),
                    "structures": int(inside.sum()),
                    "rmse": float(np.sqrt(np.mean(error**2))),
                }
            )
    if not rows:
        return None
    numbers = pd.DataFrame(rows)

    def paint(axes: Axes, colours: dict[str, str]) -> None:
        for name in strategies_of(runs):
            for label, own in numbers[numbers["strategy"] == name].groupby("run"):
                axes.plot(
                    own["mean_distance"],
                    own["rmse"],
                    color=colours[name],
                    marker=MARKERS[name],
                    markersize=5,
                    label=str(label),
                )
        axes.set_xlabel("distance from the training mean (training std)")
        axes.set_ylabel(f"RMSE ({unit})")
        axes.set_ylim(bottom=0)
        axes.legend()

    caption = (
        "All test structures, ID and OOD together, by how far their label lies from the mean of "
        "the training labels, in standard deviations of these. Bins of fewer than ten structures "
        "are left out."
    )
    return _draw("distance", "Error by distance from training", caption, numbers, paint)


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
            for label, own in numbers[numbers["strategy"] == strategy].groupby("run"):
                axes.plot(own["step"], own["error"], color=colours[strategy], alpha=0.25, lw=1)
                smooth = own["error"].rolling(5, min_periods=1).mean()
                axes.plot(own["step"], smooth, color=colours[strategy], lw=2, label=str(label))
        axes.set(xlabel=labels[0], ylabel=labels[1], yscale="log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(_some_minor_ticks)
        axes.tick_params(axis="y", which="minor", labelsize=9)
        axes.legend()

    caption = (
        "From lcurve.out: single validation batches (thin) and the mean of the last five (thick). "
        "Logarithmic scale. dp-mft select evaluates the whole validation set instead."
    )
    return _draw(*name, caption, numbers, paint)


def _some_minor_ticks(value: float, _position: int | None = None) -> str:
    """Label 2, 3 and 5 times a power of ten on a logarithmic axis."""
    text = f"{value:.0e}"
    return f"{value:g}" if text[0] in "235" else ""


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
        axes.set(xscale="log", yscale="log", xlabel="training labels", ylabel=f"RMSE ({unit})")
        ticks = sorted(table["labels"].unique())
        axes.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
        axes.legend(ncols=2, fontsize=8)

    caption = "Test error by number of training labels; means over seeds. Both axes logarithmic."
    columns = ["run", "strategy", "kind", "labels", "rmse"]
    return _draw("few_shot", "Few-shot curves", caption, table[columns], paint)
