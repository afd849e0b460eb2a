"""Time against equilibrium quality: one panel per workload, lines for the solvers of energax, markers for others.

`python -m benchmarks.picture --out FOLDER` draws `bench.png` again from the `bench.json` that lies in the folder.
"""

import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from benchmarks.reports import options_of
from energax.training.pages import save_figure

COLUMNS = 4
OWN_COLOURS = [f"C{index}" for index in range(10) if index != 7]  # C7 is grey, as the backprops are
OWN_MARKERS = "o^sDvP<X>"
OTHER_COLOURS = [
    "black",
    "#b00000",
    "#003f9e",
    "#007a3d",
    "#a000a0",
    "#c06000",
    "#008b9e",
    "#5a3fc0",
    "#6b2e00",
    "#e0409a",
]
OTHER_MARKERS = "sDo^v<>phd"
BACKPROPS = {"jax": "backprop, jax", "torch": "backprop, torch"}
DASHES = ("-", "--", ":")


def draw(path: Path, results: dict[str, Any]) -> None:
    """Write the picture."""
    found = results["workloads"]
    columns = min(COLUMNS, len(found))
    rows = -(-len(found) // columns)
    styles = styles_of(sorted({row["line"] for part in found for row in part["rows"] if row["error"]}))
    height = max(3.6 * rows, 0.2 * (len(styles) + 6))  # the legends have a line per name, two titles, two backprops
    figure = Figure(figsize=(3.9 * columns + 2.8, height), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    handles = {}
    for axes, part in zip(panels, found, strict=False):
        handles |= panel(axes, part, styles)
    for axes in panels[len(found) :]:
        axes.set_axis_off()
    names = sorted(handles, key=lambda name: (name in BACKPROPS.values(), name))
    legend(figure, "energax", {name: handles[name] for name in names if is_own(name)}, "upper")
    legend(figure, "other systems, and backprop", {name: handles[name] for name in names if not is_own(name)}, "lower")
    figure.supxlabel("milliseconds per training step", fontsize="medium")
    figure.supylabel("relative error of the first layer's gradient", fontsize="medium")
    save_figure(path, figure)


def legend(figure: Figure, title: str, handles: dict[str, Any], place: str) -> None:
    """Names beside the panels, at their upper or lower end."""
    if handles:
        names = [name.removeprefix("energax ") for name in handles]
        style: dict[str, Any] = {"loc": f"outside right {place}", "frameon": False, "fontsize": "small"}
        figure.legend(list(handles.values()), names, title=title, alignment="left", **style)


def is_own(name: str) -> bool:
    """Whether a line is one of energax's."""
    return name.startswith("energax")


def styles_of(names: list[str]) -> dict[str, dict[str, Any]]:
    """For each line a colour and a marker that no other line has: full ones for energax, empty ones for other systems.

    Where there are more lines than colours, the colours come again with other dashes.
    """
    styles: dict[str, dict[str, Any]] = {}
    for own, colours, markers, more in (
        (True, OWN_COLOURS, OWN_MARKERS, {"linewidth": 1.8, "markersize": 4.5, "zorder": 2}),
        (False, OTHER_COLOURS, OTHER_MARKERS, {"linewidth": 0.6, "markersize": 6, "zorder": 3, "fillstyle": "none"}),
    ):
        for index, name in enumerate(name for name in names if is_own(name) == own):
            turn, place = divmod(index, len(colours))
            styles[name] = {
                "color": colours[place],
                "marker": markers[place],
                "linestyle": DASHES[turn % len(DASHES)],
                **more,
            }
    return styles


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
            (handles[name],) = axes.plot(*zip(*points, strict=True), **style)
    for (framework, name), dash in zip(BACKPROPS.items(), (":", "--"), strict=True):
        times = [r["milliseconds"] for r in found["rows"] if r["role"] == "backprop" and r["framework"] == framework]
        times = [time for time in times if time]
        if times:
            handles[name] = axes.axvline(min(times), color="grey", linestyle=dash, linewidth=1)
    axes.set(xscale="log", yscale="log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_title(found["workload"]["title"], fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize="small")
    return handles


def main() -> None:
    """Draw again what was measured before."""
    folder = options_of(__doc__).out
    numbers = folder / "bench.json"
    if not numbers.is_file():
        raise SystemExit(f"no {numbers}: give the folder of a finished benchmark with --out, as in --out results/bench")
    draw(folder / "bench.png", json.loads(numbers.read_text()))


if __name__ == "__main__":
    main()
