"""What people look at after a run: a picture of its course and a page of its results."""

import io
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from energax.training.checkpoint import write_atomically
from energax.training.run_folder import History


def draw_curve(path: Path, history: History, title: str) -> None:
    """Accuracy, cost, and distance from equilibrium and from the reference gradient, epoch by epoch."""
    figure = Figure(figsize=(11, 3.9), layout="constrained")
    epochs = [row["epoch"] for row in history]
    accuracy, cost, regime = figure.subplots(1, 3)
    for axes, key, name in ((accuracy, "accuracy", "accuracy"), (cost, "cost", "cost")):
        for part in ("train", "validation"):
            axes.plot(epochs, [row[f"{part}_{key}"] for row in history], marker="o", markersize=3, label=part)
        axes.set(xlabel="epoch", ylabel=name)
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
    for axes in (accuracy, cost, regime):
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize="medium")
    save_figure(path, figure)


LEAST_DRAWN = 1e-8
"""What a logarithmic axis shows of nothing."""


def away(values: Iterable[float | None], origin: float = 1.0) -> list[float]:
    """How far from the origin, for a logarithmic axis; NaN where there is no value."""
    return [math.nan if value is None else max(abs(value - origin), LEAST_DRAWN) for value in values]


def save_figure(path: Path, figure: Figure) -> None:
    """Write a figure as PNG, as a whole or not at all."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    write_atomically(path, buffer.getvalue())


def write_summary(path: Path, config: dict[str, Any], result: dict[str, Any], history: History) -> None:
    """One page: what was run, on what, and how it went."""
    rows = [
        ("test accuracy, last epoch", percent(result["test_accuracy"])),
        (
            "test accuracy, epoch chosen by validation",
            f"{percent(result['selected_test_accuracy'])} (epoch {result['selected_epoch']})",
        ),
        ("validation accuracy, last epoch", percent(result["validation_accuracy"])),
        (
            "relaxations converged / stalled",
            f"{percent(result['converged_fraction'])} / {percent(result['stalled_fraction'])}",
        ),
        ("mean relative residual", number(result["residual"])),
        (f"gradient cosine to {result['reference']}, last epoch", number(result["gradient_cosine"])),
        (f"gradient cosine to {result['reference']}, least", number(result["least_gradient_cosine"])),
        ("training time", f"{result['seconds']:.1f} s"),
    ]
    flat = {**{key: value for key, value in config.items() if key != "settings"}, **config.get("settings", {})}
    settings = "\n".join(f"| {key} | {value} |" for key, value in flat.items() if value not in (None, {}))
    epochs = "\n".join(
        f"| {row['epoch']} | {number(row['train_cost'])} | {percent(row['train_accuracy'])} | "
        f"{percent(row['validation_accuracy'])} | {number(row['residual'])} | {number(row['gradient_cosine'])} |"
        for row in history
    )
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    text = f"""# {config.get("recipe", "run")} on {config["data"]}

| result | |
|---|---|
{table}

![course of the run](curve.png)

| epoch | training cost | training accuracy | validation accuracy | residual | gradient cosine |
|---|---|---|---|---|---|
{epochs}

| setting | value |
|---|---|
{settings}
"""
    write_atomically(path, text.encode())


def percent(value: float | None) -> str:
    """A share as a percentage; a dash where there is none."""
    return "-" if value is None or value != value else f"{100 * value:.2f} %"


def number(value: float | None) -> str:
    """A number with four digits; a dash where there is none."""
    return "-" if value is None or value != value else f"{value:.4g}"
