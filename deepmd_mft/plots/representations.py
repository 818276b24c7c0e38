"""Figures of the analysis, one function each; every one writes a PNG."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt

from deepmd_mft.plots.style import COLOURS, ELEMENT_COLOURS, style
from deepmd_mft.representations.transrate import SHUFFLED

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

__all__ = ["draw_bars", "draw_clouds", "draw_heatmaps", "draw_lines", "draw_map"]

mpl.rcParams.update(style())


def class_colours(names: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """Give every class a colour: one hue per element or pair, lighter from class to class."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_group(name), []).append(name)
    colours = {}
    for number, (group, members) in enumerate(groups.items()):
        fallback = COLOURS[number % len(COLOURS)]
        base = np.array(mpl.colors.to_rgb(ELEMENT_COLOURS.get(group, fallback)))
        for place, name in enumerate(members):
            white = 0.65 * place / max(1, len(members) - 1)
            colours[name] = tuple(base * (1 - white) + white)
    return colours


def draw_clouds(
    path: Path,
    clouds: dict[str, np.ndarray],
    labels: np.ndarray,
    titles: dict[str, str],
) -> None:
    """Draw t-SNE points of several checkpoints side by side, coloured by class (MFT, Fig. 2d-i).

    Parameters
    ----------
    path : Path
        The PNG.
    clouds : dict of str to np.ndarray
        Checkpoint to ``npoints x 2``.
    labels : np.ndarray of str
        Class of each point, the same for all.
    titles : dict of str to str
        What stands above each.
    """
    names = in_order(labels)
    colours = class_colours(names)
    columns = min(3, len(clouds))
    rows = -(-len(clouds) // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(4.2 * columns + 1.3, 4.3 * rows), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    size = float(np.clip(6000 / len(labels), 1.5, 10))
    order = np.random.default_rng(0).permutation(len(labels))  # no class always on top
    shades = np.array([colours[name] for name in labels])[order]
    for axes, (name, points) in zip(grid.flat, clouds.items(), strict=False):
        axes.scatter(*points[order].T, s=size, c=shades, linewidths=0)
        axes.set_title(titles[name])
        axes.set(xticks=[], yticks=[])
    for axes in grid.flat[len(clouds) :]:
        axes.axis("off")
    handles = [
        plt.Line2D([], [], marker="o", linestyle="", color=colours[n], label=n) for n in names
    ]
    figure.legend(handles=handles, loc="outside right center", fontsize="small")
    _save(figure, path)


def draw_bars(
    path: Path,
    table: dict[str, dict[str, tuple[float, float, float]]],
    *,
    models: Sequence[str],
    ylabel: str,
    title: str,
) -> None:
    """Draw grouped bars with ranges.

    Parameters
    ----------
    path : Path
        The PNG.
    table : dict
        Checkpoint to set to value, low, high.
    models : sequence of str
        All checkpoints: each has one colour in all figures.
    ylabel, title : str
        Words around it.
    """
    figure, axes = plt.subplots(figsize=(6.5, 4), layout="constrained")
    sets = list(next(iter(table.values())))
    width = 0.8 / len(table)
    for number, (name, row) in enumerate(table.items()):
        values, lows, highs = np.array([row[s] for s in sets]).T
        ranges = np.maximum(0, [values - lows, highs - values])
        axes.bar(
            np.arange(len(sets)) + (number - (len(table) - 1) / 2) * width,
            values,
            width,
            yerr=ranges if ranges.any() else None,
            label=name,
            color=_colour(name, models),
            capsize=3,
        )
    axes.set_xticks(np.arange(len(sets)), sets)
    axes.set(ylabel=ylabel, title=title)
    axes.legend()
    _save(figure, path)


def draw_lines(
    path: Path,
    panels: dict[str, dict[str, dict[str, float]]],
    *,
    models: Sequence[str],
    ylabels: dict[str, str],
) -> None:
    """Draw quantities layer by layer, one panel each.

    Parameters
    ----------
    path : Path
        The PNG.
    panels : dict
        Panel to checkpoint to layer to value; a baseline (``SHUFFLED``) is dotted.
    models : sequence of str
        All checkpoints: each has one colour in all figures.
    ylabels : dict
        Panel to the words at its axis.
    """
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(5.5 * columns, 3.8 * rows), squeeze=False, layout="constrained"
    )
    for axes in grid.flat[len(panels) :]:
        axes.axis("off")
    for axes, (title, lines) in zip(grid.flat, panels.items(), strict=False):
        for name, values in lines.items():
            model = name.removesuffix(SHUFFLED)
            style = "o-" if name == model else ".:"
            axes.plot(list(values), list(values.values()), style, color=_colour(model, models))
        axes.set(title=title, ylabel=ylabels[title])
        axes.tick_params(axis="x", rotation=45)
    handles = [plt.Line2D([], [], marker="o", color=_colour(m, models), label=m) for m in models]
    if any(SHUFFLED in name for lines in panels.values() for name in lines):
        handles.append(plt.Line2D([], [], linestyle=":", color="grey", label="labels shuffled"))
    figure.legend(handles=handles, loc="outside right center")
    _save(figure, path)


def draw_heatmaps(path: Path, tables: dict[str, tuple[list[str], np.ndarray]]) -> None:
    """Draw element similarities of several checkpoints side by side (JMP, Fig. 6)."""
    figure, grid = plt.subplots(
        1, len(tables), figsize=(3.4 * len(tables) + 1, 3.6), squeeze=False, layout="constrained"
    )
    image = None
    for axes, (name, (symbols, cosines)) in zip(grid.flat, tables.items(), strict=True):
        image = axes.imshow(cosines, vmin=-1, vmax=1, cmap="RdBu_r")
        axes.set_title(name)
        axes.set_xticks(range(len(symbols)), symbols, fontsize="small")
        axes.set_yticks(range(len(symbols)), symbols, fontsize="small")
        if len(symbols) <= 12:
            for (i, j), cosine in np.ndenumerate(cosines):
                dark = "white" if abs(cosine) > 0.6 else "black"
                axes.text(j, i, f"{cosine:.2f}", ha="center", va="center", fontsize=7, color=dark)
    figure.colorbar(image, ax=list(grid.flat), label="cosine of element vectors")
    _save(figure, path)


def draw_map(path: Path, panels: dict[str, np.ndarray], sets: np.ndarray) -> None:
    """Draw a map of structures from several data sets (JMP, Fig. 5).

    Parameters
    ----------
    path : Path
        The PNG.
    panels : dict of str to np.ndarray
        Panel (``nodes``, ``edges``) to t-SNE points, ``nstructures x 2``.
    sets : np.ndarray of str
        Set of each structure.
    """
    figure, grid = plt.subplots(
        1, len(panels), figsize=(5.2 * len(panels), 4.6), squeeze=False, layout="constrained"
    )
    for axes, (title, points) in zip(grid.flat, panels.items(), strict=True):
        _draw_sets(axes, points, sets)
        axes.set_title(title)
        axes.set(xticks=[], yticks=[])
    grid.flat[-1].legend(markerscale=3)
    _save(figure, path)


def _draw_sets(axes: Axes, points: np.ndarray, sets: np.ndarray) -> None:
    for number, name in enumerate(dict.fromkeys(sets.tolist())):
        rows = sets == name
        axes.scatter(
            *points[rows].T, s=4, alpha=0.7, linewidths=0, label=name,
            color=COLOURS[number % len(COLOURS)],
        )  # fmt: skip


def in_order(labels: np.ndarray) -> list[str]:
    """Sort class names: elements by name, distances from near to far."""
    rank = {"near": 0, "middle": 1, "far": 2}
    return sorted(set(labels.tolist()), key=lambda n: (_group(n), rank.get(n.split(" ")[-1], 0), n))


def _colour(name: str, names: Sequence[str]) -> str:
    return COLOURS[list(names).index(name) % len(COLOURS)]


def _group(name: str) -> str:
    return name.split("(", maxsplit=1)[0].split(" ", maxsplit=1)[0]


def _save(figure: plt.Figure, path: Path) -> None:
    figure.savefig(path, dpi=150)
    plt.close(figure)
