"""`energax compare`: recipes on the same splits, with several seeds, in one table and one picture."""

import json
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rich.box
import rich.console
import rich.table
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from energax.cli.options import CompareOptions
from energax.cli.train import epochs_of, run_recipe
from energax.data import load_data
from energax.exceptions import SettingError
from energax.files import write_atomically
from energax.metrics import ACCURACY, COST, number, percent
from energax.recipes import settings_read
from energax.recipes.settings import Settings
from energax.training import RunFolder
from energax.training.display import Terminal
from energax.training.pages import LEAST_DRAWN, away, save_figure, write_row
from energax.training.run_folder import finite

Row = dict[str, Any]


def compare(options: CompareOptions) -> None:
    """Train what is not there yet, then print, draw and save the table."""
    names = [name.strip() for name in options.recipes.split(",") if name.strip()]
    if not names or options.seeds < 1:
        raise SettingError(f"recipes={options.recipes!r}, seeds={options.seeds}: give at least one of each")
    settings = divide_settings(options.settings, names, options.data)
    for name in names:
        epochs_of(name, options.data, options.epochs)  # refuses a name or a number before anything is trained
    folder = RunFolder(options.out or Path("runs") / f"compare-{options.data}")
    rows, histories = [], {}
    for name in names:
        results = []
        for seed in range(options.seeds):
            rich.console.Console(stderr=True, highlight=False).print(f"{name}, seed {seed}")
            result, history = one_run(options, name, seed, settings[name], folder)
            results.append(result)
            histories.setdefault(name, []).append(history)
        rows.append(aggregate(name, results))
    show(rows, options)
    seeds = "seed 0" if options.seeds == 1 else f"seeds 0 to {options.seeds - 1}: median, least to largest"
    draw(folder.path / "compare.png", histories, f"{options.data}, {seeds}")
    folder.write_json("compare.json", {"data": options.data, "seeds": options.seeds, "rows": rows})
    write_atomically(folder.path / "compare.md", markdown(rows).encode())
    if options.json:
        print(json.dumps(finite({"data": options.data, "seeds": options.seeds, "rows": rows})))


def divide_settings(given: Settings, names: list[str], data: str) -> dict[str, Settings]:
    """For each recipe those of the given settings that it reads; one that no recipe reads is refused."""
    dataset = load_data(data)
    own = {}
    for name in names:
        read = settings_read(name, dataset.image_shape, dataset.classes, given)
        own[name] = Settings(**{key: value for key, value in vars(given).items() if getattr(read, key) is not None})
    for key, value in vars(given).items():
        if value is not None and all(getattr(settings, key) is None for settings in own.values()):
            raise SettingError(f"{key}={value}: with these settings none of {', '.join(names)} reads it; leave it out")
    return own


def one_run(
    options: CompareOptions, name: str, seed: int, settings: Settings, folder: RunFolder
) -> tuple[Row, list[Row]]:
    """Train one recipe with one seed, or go on where an earlier comparison stopped."""
    one = RunFolder(folder.path / f"{name}-{seed}")
    epochs = epochs_of(name, options.data, options.epochs)
    run = run_recipe(name, options.data, seed, epochs, settings, one, Terminal(), resume=one.last.exists())
    return run.result, run.history


def aggregate(name: str, results: list[Row]) -> Row:
    """Mean and spread over seeds; the median training time, and the compiling that one seed alone takes."""

    def values(key: str) -> list[float]:
        return [result[key] for result in results if result[key] == result[key]]

    def mean(key: str) -> float:
        return statistics.fmean(values(key)) if values(key) else float("nan")

    def least(key: str) -> float:
        return min(values(key)) if values(key) else float("nan")

    accuracy = values("test_accuracy")
    return {
        "recipe": name,
        "epochs": results[0]["epochs"],
        "spread": statistics.stdev(accuracy) if len(accuracy) > 1 else float("nan"),
        "selected_test_accuracy": mean("selected_test_accuracy"),
        "validation_accuracy": mean("validation_accuracy"),
        "converged_fraction": mean("converged_fraction"),
        "stalled_fraction": mean("stalled_fraction"),
        "residual": mean("residual"),
        "gradient_cosine": mean("gradient_cosine"),
        "least_gradient_cosine": least("least_gradient_cosine"),
        "reference": results[0]["reference"],
        **{f"test_{metric.name}": mean(f"test_{metric.name}") for metric in (ACCURACY, COST)},
        "seconds": statistics.median(values("seconds")),
        "compile_seconds": max(values("compile_seconds")),  # the first seed compiles, and the others use that
        "test_accuracies": accuracy,
    }


def share(value: float) -> str:
    """A share in percent, without the sign."""
    return percent(value).removesuffix(" %")


Column = tuple[str, Callable[[Row], str]]
SCREEN: tuple[Column, ...] = (
    ("recipe", lambda row: row["recipe"]),
    ("epochs", lambda row: str(row["epochs"])),
    ("test %", lambda row: share(row["test_accuracy"])),
    ("+-", lambda row: share(row["spread"])),
    ("settled %", lambda row: share(row["converged_fraction"] + row["stalled_fraction"])),
    ("residual", lambda row: number(row["residual"])),
    ("cosine", lambda row: number(row["least_gradient_cosine"])),
    ("seconds", lambda row: f"{row['seconds']:.1f}"),
)
PAGE: tuple[Column, ...] = (
    *SCREEN[:4],
    ("chosen by validation %", lambda row: share(row["selected_test_accuracy"])),
    ("converged %", lambda row: share(row["converged_fraction"])),
    ("stalled %", lambda row: share(row["stalled_fraction"])),
    ("residual", lambda row: number(row["residual"])),
    ("last cosine", lambda row: number(row["gradient_cosine"])),
    ("least cosine", lambda row: number(row["least_gradient_cosine"])),
    ("to", lambda row: row["reference"]),
    *SCREEN[7:],
    ("compiling", lambda row: f"{row['compile_seconds']:.1f}"),
    *((f"test {m.title}", lambda row, m=m: m.show(row[f"test_{m.name}"])) for m in (COST,)),
)


def show(rows: list[Row], options: CompareOptions) -> None:
    """Print the table."""
    seeds = "seed 0" if options.seeds == 1 else f"seeds 0 to {options.seeds - 1}: mean, standard deviation"
    title = f"{options.data}, {seeds}, least gradient cosine"
    table = rich.table.Table(title=title, title_justify="left", box=rich.box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading, _ in SCREEN:
        table.add_column(heading, justify="left" if heading in ("recipe", "to") else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(cell(row) for _, cell in SCREEN))
    rich.console.Console(highlight=False).print(table)


def markdown(rows: list[Row]) -> str:
    """The table for a page, with a few more columns."""
    lines = [write_row(heading for heading, _ in PAGE), "|" + "---|" * len(PAGE)]
    return "\n".join(lines + [write_row(cell(row) for _, cell in PAGE) for row in rows]) + "\n"


def draw(path: Path, histories: dict[str, list[list[Row]]], title: str) -> None:
    """Validation error and gradient cosine over the epochs: per recipe the median of the seeds, and a band around it.

    The band goes from the least to the largest of the seeds. A line for every seed would hide the recipes behind one
    another.
    """
    figure = Figure(figsize=(11, 4), layout="constrained")
    error, cosine = figure.subplots(1, 2)
    for index, (name, runs) in enumerate(histories.items()):
        epochs = [row["epoch"] for row in runs[0]]
        style = style_of(index)
        errors = [[100 * (1 - row["validation_accuracy"]) for row in history] for history in runs]
        draw_spread(error, epochs, errors, label=name, **style)
        draw_spread(cosine, epochs, [away(row["gradient_cosine"] for row in history) for history in runs], **style)
    error.set(xlabel="epoch", ylabel="validation error (%)", yscale="log")
    for formatted in (error.yaxis.set_major_formatter, error.yaxis.set_minor_formatter):
        formatted(lambda value, _: f"{value:g}")
    cosine.set(xlabel="epoch", ylabel=f"1 - gradient cosine (drawn from {LEAST_DRAWN:g})", yscale="log")
    for axes in (error, cosine):
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right center", frameon=False)
    figure.suptitle(title, fontsize="medium")
    save_figure(path, figure)


MARKERS = "os^Dv<>pPX*"  # one more than there are colours: a pair comes again only after 110 recipes
DASHES = ("-", "--", ":")


def style_of(index: int) -> dict[str, Any]:
    """How one of several recipes is drawn.

    Recipes that agree to the last digit are seen nevertheless: each next one is thinner, and has other dashes, than
    those that it is drawn upon.
    """
    return {
        "color": f"C{index % 10}",
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": DASHES[index % len(DASHES)],
        "linewidth": max(2.6 - 0.2 * index, 1.2),
        "markersize": max(8 - 0.6 * index, 4),
    }


def draw_spread(axes: Axes, epochs: list[int], runs: list[list[float]], **style: Any) -> None:
    """The median of several runs over the epochs, and the band between their least and largest values.

    Runs without a value at an epoch (NaN) are left out there; where none has one, the line has a gap.
    """
    values = [[value for value in at if value == value] or [math.nan] for at in zip(*runs, strict=True)]
    axes.plot(epochs, [statistics.median(at) for at in values], **style)
    if len(runs) > 1:
        least, largest = [min(at) for at in values], [max(at) for at in values]
        axes.fill_between(epochs, least, largest, color=style["color"], alpha=0.15, linewidth=0)
