"""A figure of a report: PNG images for the light and the dark page, and its numbers."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure

from deepmd_mft.plots.style import STRATEGY_COLOURS, THEMES, style

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd
    from matplotlib.axes import Axes

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


def draw(
    name: str,
    title: str,
    caption: str,
    numbers: pd.DataFrame,
    paint: Callable[[Axes, dict[str, str]], None],
) -> Drawing:
    """Draw a figure once for each theme.

    Parameters
    ----------
    name, title, caption : str
        File name without ending, heading, text below.
    numbers : pd.DataFrame
        What is drawn, for the CSV beside it.
    paint : callable
        Draws into the axes; takes the colour of each strategy, of ``ink`` and ``paper``.
    """
    images = {}
    for theme, (paper, ink, _) in THEMES.items():
        with mpl.rc_context(style(theme)):
            figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
            axes: Any = figure.add_subplot()
            axes.grid(visible=True)
            paint(axes, {**STRATEGY_COLOURS[theme], "ink": ink, "paper": paper})
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=170)
        images[theme] = buffer.getvalue()
    return Drawing(name, title, caption, numbers, images)
