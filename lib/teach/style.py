"""One look for every figure: colour-blind safe colours, and never colour alone."""

from __future__ import annotations

import matplotlib as mpl
from cycler import cycler
from matplotlib.colors import LinearSegmentedColormap

# Okabe and Ito's palette, darkened until each colour has 4.5:1 contrast on white.
COLOURS = ("#0072b2", "#c44e00", "#00795a", "#a8457f", "#7a5a00", "#3f3f9f")
DASHES = ("-", (0, (6, 3)), (0, (1.5, 2)), (0, (7, 2, 1.5, 2)), (0, (3, 1.5)), (0, (1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P")
INK = "#222222"
# of an angle: dark all round, so that no side is pale
CYCLIC = LinearSegmentedColormap.from_list("cyclic", [COLOURS[j] for j in (0, 2, 1, 3, 0)])
WIDTH = 4.4  # inches of a figure of one panel: at the scale of book.css it just fits a phone
FRAME = "0.7"  # where a white picture ends on white paper

RC = {
    "figure.figsize": (WIDTH, 3.0),
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.wspace": 0.05,  # the name of an axis keeps off the panel before
    "font.size": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=COLOURS, linestyle=DASHES),
    "axes.grid": False,
    "legend.frameon": False,
    "legend.handlelength": 3.2,
    "lines.linewidth": 1.8,
    "image.cmap": "viridis",
}


def colour(series: int) -> str:
    """Colour of series 0, 1, ...; pair it with `dash(series)` or `marker(series)`. -1 is ink."""
    return INK if series < 0 else COLOURS[series % len(COLOURS)]


def dash(series: int):
    """Line style of a series, so that no curve is known by its colour alone."""
    return DASHES[max(series, 0) % len(DASHES)]


def marker(series: int) -> str:
    """Marker of a series of points."""
    return MARKERS[max(series, 0) % len(MARKERS)]


def frame(ax) -> None:
    """A picture's axes: no ticks, and a thin line where a white picture ends."""
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set(visible=True, color=FRAME, linewidth=0.6)


def apply() -> None:
    """Set the book's matplotlib style for this session."""
    mpl.rcParams.update(RC)
