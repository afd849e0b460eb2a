"""One look for all pictures."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

QUIET = {"frameon": False, "fontsize": "small"}


def panels(count: int, *, width: float = 4.2, height: float = 3.4) -> tuple[Figure, list[Axes]]:
    """A figure with panels side by side."""
    figure = Figure(figsize=(width * count, height), layout="constrained")
    axes = list(figure.subplots(1, count, squeeze=False)[0])
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
        one.title.set_fontsize("medium")
    return figure, axes


def band(axes: Axes, x, mean, spread, **style) -> None:
    """A line with a band of one standard deviation on both sides."""
    (line,) = axes.plot(x, mean, **style)
    low, high = ([m + sign * s for m, s in zip(mean, spread, strict=True)] for sign in (-1, 1))
    axes.fill_between(x, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
