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
    paint: Callable[[Any, dict[str, str]], None],
    *,
    panels: int | None = None,
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
    panels : int, optional
        So many axes side by side, which are painted as a list.
    """
    images = {}
    for theme, (paper, ink, _) in THEMES.items():
        with mpl.rc_context(style(theme)):
            height = HEIGHT if (panels or 1) == 1 else 0.8 * HEIGHT
            figure = Figure(figsize=(WIDTH, height), layout="constrained")
            axes = figure.subplots(1, panels or 1, squeeze=False)[0].tolist()
            for one in axes:
                one.grid(visible=True)
            colours = {**STRATEGY_COLOURS[theme], "ink": ink, "paper": paper}
            paint(axes if panels else axes[0], colours)
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=170)
        images[theme] = buffer.getvalue()
    return Drawing(name, title, caption, numbers, images)
