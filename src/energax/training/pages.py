"""What people look at after a run: a picture of its course and a page of its results."""

import io
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from energax.files import write_atomically
from energax.training.metrics import METRICS, RELAXATION_METRICS, number
from energax.training.run_folder import History

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_curve(path: Path, history: History, title: str) -> None:
    """The metrics of both parts, and distance from equilibrium and from the reference gradient, epoch by epoch."""
    from matplotlib.figure import Figure  # not above: `import energax` would wait a second for matplotlib

    figure = Figure(figsize=(11 / 3 * (len(METRICS) + 1), 3.9), layout="constrained")
    epochs = [row["epoch"] for row in history]
    *panels, regime = figure.subplots(1, len(METRICS) + 1)
    for axes, metric in zip(panels, METRICS, strict=True):
        for part in ("train", "validation"):
            axes.plot(epochs, [row[f"{part}_{metric.name}"] for row in history], marker="o", markersize=3, label=part)
        axes.set(xlabel="epoch", ylabel=metric.title)
        axes.legend(frameon=False)
    reference = history[-1]["reference"]
    lines = {
        "gradient_cosine": f"1 - gradient cosine to {reference}",
        "norm_ratio": "1 - gradient norm ratio",
        "relaxed_fraction": "1 - relaxed fraction",
    }
    drawn = {label: away(row[key] for row in history) for key, label in lines.items()}
    drawn["relative residual"] = away((row["residual"] for row in history), origin=0.0)
    for label, values in drawn.items():
        if all(value == value for value in values):
            regime.plot(epochs, values, marker="o", markersize=3, label=label)
    regime.set(xlabel="epoch", ylabel=f"distance (drawn from {LEAST_DRAWN:g})", yscale="log")
    regime.legend(frameon=False, fontsize="small", ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    for axes in (*panels, regime):
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize="medium")
    save_figure(path, figure)


LEAST_DRAWN = 1e-8
"""What a logarithmic axis shows of nothing."""


def away(values: Iterable[float | None], origin: float = 1.0) -> list[float]:
    """How far from the origin, for a logarithmic axis; NaN where there is no value."""
    return [math.nan if value is None else max(abs(value - origin), LEAST_DRAWN) for value in values]


def save_figure(path: Path, figure: "Figure") -> None:
    """Write a figure as PNG, as a whole or not at all."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    write_atomically(path, buffer.getvalue())


def write_summary(path: Path, config: dict[str, Any], result: dict[str, Any], history: History) -> None:
    """One page: what was run, on what, and how it went."""
    flat = {**{key: value for key, value in config.items() if key != "settings"}, **config.get("settings", {})}
    settings = "\n".join(f"| {key} | {value} |" for key, value in flat.items() if value not in (None, {}))
    headings = [f"{part} {metric.title}" for part in ("training", "validation") for metric in METRICS]
    headings = ["epoch", *headings, "residual", "gradient cosine", "seconds", "compiling"]
    epochs = "\n".join(f"| {' | '.join(epoch_cells(row))} |" for row in history)
    table = "\n".join(f"| {name} | {value} |" for name, value in result_rows(result))
    warned = "".join(f"- **Warning**, {message}\n" for message in result["warnings"])
    text = f"""# {config.get("recipe", "run")} on {config["data"]}

| result | |
|---|---|
{table}

{warned}
![course of the run](curve.png)

| {" | ".join(headings)} |
{"|---" * len(headings)}|
{epochs}

| setting | value |
|---|---|
{settings}
"""
    write_atomically(path, text.encode())


def epoch_cells(row: dict[str, Any]) -> list[str]:
    """One row of the table of epochs."""
    shown = [metric.show(row[f"{part}_{metric.name}"]) for part in ("train", "validation") for metric in METRICS]
    times = [f"{row[name]:.1f} s" for name in ("seconds", "compile_seconds")]
    return [str(row["epoch"]), *shown, number(row["residual"]), number(row["gradient_cosine"]), *times]


def result_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    """What people are told of a finished run: a title and a value, line by line."""
    rows = []
    for metric in METRICS:
        rows += [
            (f"test {metric.title}, last epoch", metric.show(result[f"test_{metric.name}"])),
            (
                f"test {metric.title}, epoch chosen by validation",
                f"{metric.show(result[f'selected_test_{metric.name}'])} (epoch {result['selected_epoch']})",
            ),
            (f"validation {metric.title}, last epoch", metric.show(result[f"validation_{metric.name}"])),
        ]
    return [
        *rows,
        *((f"relaxations: {metric.title}", metric.show(result[metric.name])) for metric in RELAXATION_METRICS),
        (f"gradient cosine to {result['reference']}, last epoch", number(result["gradient_cosine"])),
        (f"gradient cosine to {result['reference']}, least", number(result["least_gradient_cosine"])),
        ("training time", f"{result['seconds']:.1f} s"),
        ("compiling", f"{result['compile_seconds']:.1f} s"),
    ]
