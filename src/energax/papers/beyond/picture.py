"""The picture and the table of `beyond-depth`."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from energax.papers.beyond.reading import PLACES, SHARES, average, exponent, mean_steps, training_steps
from energax.papers.beyond.ways import ENERGIES, SOLVERS, label
from energax.papers.experiment import Numbers
from energax.papers.pictures import QUIET, panels
from energax.papers.tables import Table

COLORS = dict(zip(ENERGIES, ("C0", "C1", "C2", "C4"), strict=True))
LINES = dict(zip(SOLVERS, ((":", "v"), ("-", "o"), ("--", "s"), ("-.", "^")), strict=True))


def style(way: str) -> dict[str, Any]:
    """Colour by energy, line and marker by solver."""
    energy, solver = way.split("-")
    line, marker = LINES[solver]
    return {"color": COLORS[energy], "linestyle": line, "marker": marker, "markersize": 4, "linewidth": 1.2}


def draw(numbers: Numbers) -> Figure:
    """Steps against depth; cosines and sizes along the deepest net; accuracies, and the steps that they took."""
    figure, axes = panels(5, width=3.9, height=6.4)
    steps, cosines, sizes, accuracy, trained = axes
    depths = [int(depth) for depth in numbers["counted"]]
    ways = list(numbers["counted"][str(depths[-1])][0])
    for way in ways:
        found = mean_steps(numbers, way)
        short = "" if depths[-1] in found else f", last at {max(found)}" if found else ", never"
        told = f"{label(way)}: L^{exponent(found):.2f}{short}"
        steps.plot(list(found), list(found.values()), label=told, **style(way))
        if depths[-1] in found:
            spent = f"{found[depths[-1]]:.0f} steps, {average(numbers, depths[-1], way, 'times'):.3g} x backprop"
            for panel, name in ((cosines, "cosines"), (sizes, "sizes")):
                values = average(numbers, depths[-1], way, name)[:4]
                panel.plot(range(1, 5), values, label=f"{label(way)}: {spent}", **style(way))
    steps.plot(depths, depths, color="0.6", linewidth=0.8, label="L")
    draw_training(numbers, accuracy, trained)
    steps.set(
        xscale="log", yscale="log", xlabel="blocks L", ylabel="steps T", title="to a cosine of .9, lowest quarter"
    )
    cosines.set(ylabel="cosine to backprop", title=f"L = {depths[-1]}, after these T steps")
    sizes.set(yscale="log", ylabel="norm over backprop's", title=f"L = {depths[-1]}, after these T steps")
    for panel in (cosines, sizes):
        panel.set(xticks=range(1, 5), xlabel="quarter of the blocks, lowest first")
    for panel in axes:
        panel.legend(loc="upper left", bbox_to_anchor=(-0.05, -0.14), **QUIET)
    return figure


def draw_training(numbers: Numbers, accuracy: Axes, trained: Axes) -> None:
    """Accuracies of the deepest net that every way trained, and the steps to 98 % (lines) and 90 % (faint)."""
    rows = {int(depth): row for depth, row in numbers["trained"].items()}
    ways = max((list(row["ways"]) for row in rows.values()), key=len)
    deep = max(depth for depth, row in rows.items() if len(row["ways"]) == len(ways))
    exact = 100 * rows[deep]["backprop"]
    for share in SHARES:
        accuracy.axhline(share * exact, color="0.8", linewidth=0.8)
    accuracy.axhline(exact, color="k", linewidth=0.8, label="backprop")
    for way in ways:
        curve = rows[deep]["ways"][way]
        accuracy.plot(
            [int(count) for count in curve], [100 * got for got in curve.values()], label=label(way), **style(way)
        )
        for share, alpha in zip(SHARES, (0.35, 1), strict=True):
            found = training_steps(numbers, way, share)
            told = f"{label(way)}, {100 * share:.0f} %: L^{exponent(found):.2f}"
            trained.plot(list(found), list(found.values()), alpha=alpha, label=told, **style(way))
    accuracy.set(xscale="log", xlabel="steps T", ylabel="validation accuracy, %", title=f"after training, L = {deep}")
    trained.set(xscale="log", yscale="log", xlabel="blocks L", title="to 90 and 98 % of backprop's")


def tabulate(numbers: Numbers) -> Table:
    """Every way at every depth: steps, their cost, and the gradient that they leave, quarter by quarter."""
    lines = []
    for depth, seeds in numbers["counted"].items():
        for way in seeds[0]:
            steps = [mean_steps(numbers, way, place).get(int(depth)) for place in PLACES]
            times = [seed[way]["times"] for seed in seeds if seed[way]["times"] is not None]
            looks = [average(numbers, int(depth), way, name)[:4] for name in ("cosines", "sizes")]
            lines.append(
                [
                    label(way),
                    depth,
                    *("-" if count is None else f"{count:g}" for count in steps),
                    f"{np.mean(times):.3g}" if times else "-",
                    ", ".join(f"{value:.2f}" for value in looks[0]),
                    ", ".join(f"{value:.2g}" for value in looks[1]),
                ]
            )
    return Table(
        "Steps to a cosine of .9 with backprop's gradient at the initial weights",
        ["way", "L", *PLACES, "times backprop", "cosines by quarter, lowest first", "sizes over backprop's"],
        lines,
        ["Cosines and sizes are those after the steps of the lowest quarter, or after the most that were tried."],
    )
