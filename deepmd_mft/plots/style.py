"""One palette and one style for all figures.

Colours are those of Okabe and Ito (2008), told apart by readers with any colour vision; markers,
hatches and lines repeat what the colours say.
"""

from __future__ import annotations

from typing import Any

BLUE, VERMILLION, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
ORANGE, SKY, BLACK, GREY = "#e69f00", "#56b4e9", "#000000", "#6b6b6b"
#: In the order in which curves, bars and points take them.
COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK, GREY)
ELEMENT_COLOURS = {"H": PURPLE, "C": BLACK, "N": BLUE, "O": VERMILLION, "F": GREEN, "S": ORANGE}

#: Paper, ink and grid of a theme.
THEMES = {"light": ("#ffffff", "#1c1c1c", "#d8d8d8"), "dark": ("#1b1e23", "#e6e6e6", "#41464e")}
#: Strategies of fine-tuning have one colour, marker and line in every figure.
STRATEGY_COLOURS = {
    "light": {
        "scratch": GREY,
        "multitask": PURPLE,
        "ft": VERMILLION,
        "lp": GREEN,
        "mft": BLUE,
        "mft-property": ORANGE,
        "mft-both": BLACK,
    },
    "dark": {  # lighter, for the dark paper
        "scratch": "#b0b0b0",
        "multitask": "#e6a3c8",
        "ft": "#ff8f4d",
        "lp": "#35c796",
        "mft": SKY,
        "mft-property": "#ffc34d",
        "mft-both": "#f5f5f5",
    },
}
LINES = {
    "scratch": ":",
    "multitask": (0, (3, 1, 1, 1)),
    "ft": "-",
    "lp": "-.",
    "mft": "-",
    "mft-property": "--",
    "mft-both": (0, (5, 1)),
}
MARKERS = {
    "scratch": "s",
    "multitask": "v",
    "ft": "o",
    "lp": "^",
    "mft": "D",
    "mft-property": "P",
    "mft-both": "X",
}
#: Test sets, the first (ID) filled, others hatched: hatch and line of each.
SETS = (("", "-"), ("////", "--"), ("....", ":"), ("xxxx", "-."))


def style(theme: str = "light") -> dict[str, Any]:
    """Return the settings of matplotlib for a theme, ``light`` or ``dark``."""
    paper, ink, grid = THEMES[theme]
    return {
        "figure.facecolor": paper,
        "axes.facecolor": paper,
        "savefig.facecolor": paper,
        "text.color": ink,
        "axes.edgecolor": ink,
        "axes.labelcolor": ink,
        "xtick.color": ink,
        "ytick.color": ink,
        "grid.color": grid,
        "grid.linewidth": 0.6,
        "axes.axisbelow": True,
        "font.size": 11,
        "axes.titlesize": 11,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "hatch.linewidth": 1.2,
    }
