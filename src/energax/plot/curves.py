"""Curves: how a relaxation went, and how far a training was from equilibrium and from the exact gradient."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from energax.inference.trace import Trace

LINES = 8  # beyond so many a legend hides more than it tells


def draw_relaxation(trace: Trace) -> Figure:
    """Three panels: energy above its lowest, error and force of every node, over the steps; medians over the rows."""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    energies, errors, forces = figure.subplots(1, 3)
    energy = np.asarray(trace.energy)
    if np.isfinite(energy).any():
        above = energy - np.nanmin(energy, axis=0)
        low, middle, high = (np.nanquantile(above, q, axis=1) for q in (0.1, 0.5, 0.9))
        steps = np.arange(len(energy))
        energies.fill_between(steps, low, high, alpha=0.2, linewidth=0)
        energies.plot(steps, middle)
        set_scale(energies, middle)
        energies.set(title="energy above the lowest", xlabel="step")
    else:
        energies.set_axis_off()
        energies.text(0.5, 0.5, "no energy", ha="center", transform=energies.transAxes)
    for axes, title, values in ((errors, "error", trace.error), (forces, "force", trace.force)):
        for name, norms in values.items():
            axes.plot(np.median(np.asarray(norms), axis=1), label=name)
        if title == "force":
            set_scale(axes, *(np.asarray(norms) for norms in values.values()))
        axes.set(title=f"{title} of every node, norm", xlabel="step")
        if 0 < len(values) <= LINES:
            axes.legend(frameon=False, fontsize="small")
    tidy(energies, errors, forces)
    return figure


def draw_regime(history: list[dict]) -> Figure:
    """Three panels over the epochs: cosine and size of every layer's gradient, and how the relaxations ended."""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    cosines, ratios, verdicts = figure.subplots(1, 3)
    rows = [row for row in history if "layer_cosine" in row]
    reference = rows[-1]["reference"]
    for axes, key, title in (
        (cosines, "layer_cosine", f"cosine to {reference}"),
        (ratios, "layer_norm_ratio", f"size relative to {reference}"),
    ):
        names = list(rows[-1][key])
        for name in names:
            axes.plot([row["epoch"] for row in rows], [row[key][name] for row in rows], marker="o", ms=3, label=name)
        axes.axhline(1, color="grey", linewidth=0.8, linestyle=":")
        axes.set(title=f"gradient: {title}", xlabel="epoch")
        if len(names) <= LINES:
            axes.legend(frameon=False, fontsize="small")
    for name in [name for name in history[-1] if name.endswith("_fraction") and name != "relaxed_fraction"]:
        shares = [100 * (np.nan if row[name] is None else row[name]) for row in history]
        if np.nanmax([0, *shares]) > 0:
            label = name.removesuffix("_fraction").replace("_", " ")
            verdicts.plot([row["epoch"] for row in history], shares, marker="o", ms=3, label=label)
    verdicts.set(title="how relaxations ended, %", xlabel="epoch", ylim=(-2, 102))
    if verdicts.lines:
        verdicts.legend(frameon=False, fontsize="small")
    for axes in (cosines, ratios, verdicts):
        axes.xaxis.get_major_locator().set_params(integer=True)
    tidy(cosines, ratios, verdicts)
    return figure


def set_scale(axes: Axes, *values: np.ndarray) -> None:
    """A logarithmic axis where there is something above 0 to show on it."""
    if any((value > 0).any() for value in values):
        axes.set_yscale("log")


def tidy(*panels: Axes) -> None:
    """Without the frames' upper and right sides."""
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
