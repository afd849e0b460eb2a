"""Time against equilibrium quality: one panel per workload, one line per solver and system."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from energax.training.pages import save_figure

COLUMNS = 4


def draw(path: Path, results: dict[str, Any]) -> None:
    """Write the picture."""
    found = results["workloads"]
    columns = min(COLUMNS, len(found))
    rows = -(-len(found) // columns)
    names = sorted({row["line"] for part in found for row in part["rows"] if row["error"]}, key=placed)
    height = max(3.3 * rows, 0.2 * (len(names) + 3))  # the legend has a line per name and one per backprop
    figure = Figure(figsize=(3.6 * columns + 2.8, height), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    styles = {name: {"color": f"C{i % 10}", "marker": MARKERS[i // 10 % len(MARKERS)]} for i, name in enumerate(names)}
    handles = {}
    for axes, part in zip(panels, found, strict=False):
        handles |= panel(axes, part, styles)
    for axes in panels[len(found) :]:
        axes.set_axis_off()
    order = sorted(handles, key=placed)
    figure.legend([handles[name] for name in order], order, loc="outside right center", frameon=False, fontsize="small")
    figure.supxlabel("milliseconds per training step", fontsize="medium")
    figure.supylabel("relative error of the first layer's gradient", fontsize="medium")
    save_figure(path, figure)


MARKERS = "os^Dv"


def placed(name: str) -> tuple[bool, str]:
    """Own lines first."""
    return not name.startswith("energax"), name


def panel(axes: Axes, found: dict[str, Any], styles: dict[str, dict]) -> dict[str, Any]:
    """One workload; the handles for the legend."""
    handles = {}
    for name, style in styles.items():
        points = sorted(
            (row["milliseconds"], row["error"])
            for row in found["rows"]
            if row["line"] == name and row["error"] and row["milliseconds"]
        )
        if points:
            own = {"linewidth": 2.0} if name.startswith("energax") else {"linewidth": 1.0, "alpha": 0.8}
            (handles[name],) = axes.plot(*zip(*points, strict=True), markersize=4, **own, **style)
    for framework, dash in (("jax", ":"), ("torch", "--")):
        times = [r["milliseconds"] for r in found["rows"] if r["role"] == "backprop" and r["framework"] == framework]
        times = [time for time in times if time]
        if times:
            handles[f"backprop, {framework}"] = axes.axvline(min(times), color="grey", linestyle=dash, linewidth=1)
    axes.set(xscale="log", yscale="log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_title(found["workload"]["title"], fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize="small")
    return handles
