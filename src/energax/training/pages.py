"""What people look at after a run: a picture of its course and a page of its results."""

import io
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from energax.files import write_atomically
from energax.metrics import Metric, number
from energax.training.metrics import RELAXATION_METRICS
from energax.training.run_folder import History, RunFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_curve(path: Path, history: History, metrics: tuple[Metric, ...], title: str) -> None:
    """The metrics of all parts, and distance from equilibrium and from the reference gradient, epoch by epoch."""
    from matplotlib.figure import Figure  # not above: `import energax` would wait a second for matplotlib

    figure = Figure(figsize=(11 / 3 * (len(metrics) + 1), 3.9), layout="constrained")
    epochs = [row["epoch"] for row in history]
    *panels, regime = figure.subplots(1, len(metrics) + 1)
    for axes, metric in zip(panels, metrics, strict=True):
        for part in parts_of(history):
            axes.plot(epochs, [row[f"{part}_{metric.name}"] for row in history], marker="o", markersize=3, label=part)
        axes.set(xlabel="epoch", ylabel=metric.title)
        axes.legend(frameon=False)
    reference = history[-1].get("reference")
    lines = {
        "gradient_cosine": f"1 - gradient cosine to {reference}",
        "norm_ratio": "1 - gradient norm ratio",
        "relaxed_fraction": "1 - relaxed fraction",
    }
    drawn = {label: away(row.get(key) for row in history) for key, label in lines.items()}
    drawn["relative residual"] = away((row["residual"] for row in history), origin=0.0)
    for label, values in drawn.items():
        if all(value == value for value in values):
            regime.plot(epochs, values, marker="o", markersize=3, label=label)
    regime.set(xlabel="epoch", ylabel=f"distance (drawn from {LEAST_DRAWN:g})", yscale="log")
    if regime.lines:
        regime.legend(frameon=False, fontsize="small", ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    for axes in (*panels, regime):
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize="medium")
    save_figure(path, figure)


def parts_of(history: History) -> list[str]:
    """The parts of the data that the log tells of."""
    return [part for part in ("train", "validation") if any(name.startswith(f"{part}_") for name in history[-1])]


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


def write_summary(
    path: Path, config: dict[str, Any], result: dict[str, Any], history: History, metrics: tuple[Metric, ...]
) -> None:
    """One page: what was run, on what, and how it went."""
    flat = {**{key: value for key, value in config.items() if key != "settings"}, **config.get("settings", {})}
    settings = "\n".join(write_row(pair) for pair in flat.items() if pair[1] not in (None, {}))
    parts = [(part, {"train": "training"}.get(part, part)) for part in parts_of(history)]
    headings = [f"{word} {metric.title}" for _, word in parts for metric in metrics]
    headings = ["epoch", *headings, "residual", "gradient cosine", "seconds", "compiling"]
    epochs = "\n".join(write_row(epoch_cells(row, metrics)) for row in history)
    table = "\n".join(write_row(pair) for pair in result_rows(result, metrics))
    warned = "".join(f"- **Warning**, {message}\n" for message in result["warnings"])
    text = f"""# {config.get("recipe", "run")} on {config["data"]}

| result | |
|---|---|
{table}

{warned}
![course of the run](curve.png)

{write_row(headings)}
{"|---" * len(headings)}|
{epochs}

| setting | value |
|---|---|
{settings}
"""
    write_atomically(path, text.encode())


def write_row(cells: Iterable[object]) -> str:
    """A row of a table in Markdown, where a stroke would end a cell, and the end of a line the row."""
    return "| " + " | ".join(" ".join(str(cell).splitlines()).replace("|", "\\|") for cell in cells) + " |"


def epoch_cells(row: dict[str, Any], metrics: tuple[Metric, ...]) -> list[str]:
    """One row of the table of epochs."""
    shown = [metric.show(row[f"{part}_{metric.name}"]) for part in parts_of([row]) for metric in metrics]
    times = [f"{row[name]:.1f} s" for name in ("seconds", "compile_seconds")]
    return [str(row["epoch"]), *shown, number(row["residual"]), number(row.get("gradient_cosine")), *times]


def result_rows(result: dict[str, Any], metrics: tuple[Metric, ...]) -> list[tuple[str, str]]:
    """What people are told of a finished run: a title and a value, line by line."""
    rows = []
    for metric in metrics:
        name = metric.name
        if f"test_{name}" in result:
            rows.append((f"test {metric.title}, last epoch", metric.show(result[f"test_{name}"])))
        if f"selected_test_{name}" in result:
            told = f"{metric.show(result[f'selected_test_{name}'])} (epoch {result['selected_epoch']})"
            rows.append((f"test {metric.title}, epoch chosen by validation", told))
        if f"validation_{name}" in result:
            rows.append((f"validation {metric.title}, last epoch", metric.show(result[f"validation_{name}"])))
        else:
            rows.append((f"training {metric.title}, last epoch", metric.show(result[f"train_{name}"])))
    rows += [(f"relaxations: {metric.title}", metric.show(result[metric.name])) for metric in RELAXATION_METRICS]
    if "gradient_cosine" in result:
        rows += [
            (f"gradient cosine to {result['reference']}, last epoch", number(result["gradient_cosine"])),
            (f"gradient cosine to {result['reference']}, least", number(result["least_gradient_cosine"])),
        ]
    return [
        *rows,
        ("training time", f"{result['seconds']:.1f} s"),
        ("compiling", f"{result['compile_seconds']:.1f} s"),
    ]


def write_results(
    folder: RunFolder, settings: dict[str, Any], result: dict[str, Any], history: History, metrics: tuple[Metric, ...]
) -> None:
    """Write what people look at."""
    folder.write_json("result.json", result)
    title = f"{settings.get('recipe', 'run')} on {settings['data']}, seed {settings['seed']}"
    draw_curve(Path(folder.path) / "curve.png", history, metrics, title)
    write_summary(Path(folder.path) / "summary.md", settings, result, history, metrics)
