"""Trainings in a grid of data sets, networks, methods and optimisers, each a cell of its own that resumes."""

import dataclasses
import shutil
import statistics
from collections.abc import Sequence
from typing import Any

import energax as ex
from energax.data import Dataset
from energax.exceptions import DivergenceError, SettingError
from energax.papers.cells import Cells, Tell
from energax.recipes import Settings as Choice
from energax.recipes import make_learner
from energax.training import RunFolder, fit
from energax.training.display import Silent

Row = dict[str, Any]

METHODS: dict[str, tuple[str, Choice]] = {
    "hpc": ("pc", Choice(relaxation_tol=1e-2, max_relaxation_steps=4)),
    "bipc": ("bipc", Choice(relaxation_tol=1e-2, max_relaxation_steps=30)),
    "ep": ("ep", Choice(relaxation_tol=1e-2, check_every=2)),
    "backprop": ("backprop", Choice()),
}
"""Name in the table -> a recipe, and the settings in which it differs from that."""

TITLES = {"hpc": "HPC", "bipc": "BiPC", "ep": "EP", "backprop": "backprop"}

KEPT = (
    "test_accuracy",
    "selected_test_accuracy",
    "selected_epoch",
    "validation_accuracy",
    "converged_fraction",
    "stalled_fraction",
    "out_of_steps_fraction",
    "diverged_fraction",
    "residual",
    "steps",
    "gradient_cosine",
    "least_gradient_cosine",
    "reference",
    "seconds",
    "compile_seconds",
)
"""What a table needs of a run's result."""


@dataclasses.dataclass(frozen=True)
class Point:
    """One training.

    Attributes:
        data, net, method, optimiser: names.
        seed: fixes parameters and the order of the rows.
        choice: settings of the recipe.
        epochs: passes over the training rows.
        rows: of the training split, from the first; None: all.
    """

    data: str
    net: str
    method: str
    optimiser: str
    seed: int
    choice: Choice
    epochs: int
    rows: int | None

    @property
    def name(self) -> str:
        """What its cell is called."""
        return f"{self.data}-{self.net}-{self.method}-{self.optimiser}-{self.seed}"

    def facts(self) -> Row:
        """Where in the grid it is."""
        return {key: getattr(self, key) for key in ("data", "net", "method", "optimiser", "seed")}


def split_names(setting: str, names: str, known: Sequence[str]) -> list[str]:
    """Names separated by commas, each a known one."""
    given = [name.strip() for name in names.split(",") if name.strip()]
    wrong = [name for name in given if name not in known]
    if wrong or not given:
        raise SettingError(f"{setting}={names!r}: give some of {', '.join(known)}, separated by commas")
    return given


def train_point(cells: Cells, point: Point) -> Row:
    """Train one point, or go on where an interrupted run finished an epoch.

    Returns:
        What the table says of it, and `history`: cost, accuracy and cosine of every epoch. A training whose cost is no
        number any more is a result too: `diverged` says when.
    """
    data = keep_rows(ex.load(point.data), point.rows)
    recipe = METHODS[point.method][0]
    learner, complete = make_learner(recipe, data.image_shape, data.classes, seed=point.seed, settings=point.choice)
    folder = RunFolder(cells.file(point.name))
    plan = {"epochs": point.epochs, "batch": complete.batch, "seed": point.seed, "standardise": complete.standardise}
    config = {"recipe": recipe, "settings": dataclasses.asdict(complete)}
    display = Progress(point.name, cells.tell)
    try:
        run = fit(learner, data, folder=folder, resume=folder.last.exists(), display=display, config=config, **plan)
        found = {name: run.result[name] for name in KEPT}
        found |= {"history": history(run.history), "diverged": None}
    except DivergenceError as error:
        found = {"diverged": str(error)}
    shutil.rmtree(folder.path, ignore_errors=True)
    return {**point.facts(), **found}


def history(rows: Sequence[Row]) -> list[Row]:
    """The course of a run, in short."""
    names = ("epoch", "train_cost", "train_accuracy", "validation_accuracy", "gradient_cosine", "residual")
    return [{name: row[name] for name in names} for row in rows]


class Progress(Silent):
    """A line per epoch."""

    def __init__(self, name: str, tell: Tell):
        self._name, self._tell = name, tell

    def epoch(self, row):
        """Tell."""
        accuracy, cosine = row["validation_accuracy"], row["gradient_cosine"]
        self._tell(
            f"{self._name}, epoch {row['epoch']}: validation accuracy {accuracy:.4f}, gradient cosine {cosine:.3f}, "
            f"{row['seconds']:.0f} s"
        )


def keep_rows(data: Dataset, rows: int | None) -> Dataset:
    """The data set with the first rows of its training split only; their own statistics."""
    if rows is None or rows >= len(data.train):
        return data
    train = (data.train.images[:rows], data.train.labels[:rows])
    held = {
        part: (split.images, split.labels) for part, split in (("validation", data.validation), ("test", data.test))
    }
    return Dataset.from_arrays(
        data.name,
        train=train,
        **held,
        classes=data.classes,
        scale=data.scale,
        augmentation=data.augmentation,
        origin=f"{data.origin}, first {rows} training rows",
        checksums=data.checksums,
    )


def gather(rows: Sequence[Row], keys: Sequence[str]) -> dict[tuple, list[Row]]:
    """Rows that agree in these keys, together."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return groups


def mean(rows: Sequence[Row], name: str) -> float | None:
    """Mean over seeds; None where one of them diverged, or has no such number."""
    values = [row.get(name) for row in rows]
    return None if None in values or not values else statistics.fmean(values)


def show_percent(rows: Sequence[Row], name: str) -> str:
    """Mean and standard deviation of a share over seeds, in per cent; what became of a training that diverged."""
    lost = sum(row["diverged"] is not None for row in rows)
    if lost:
        return f"diverged ({lost} of {len(rows)})"
    values = [100 * row[name] for row in rows]
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.2f}{spread}"


def show_regime(rows: Sequence[Row]) -> list[str]:
    """Verdicts of the last epoch's relaxations, residual, least cosine of any epoch and seed, and seconds, as texts."""
    if any(row["diverged"] is not None for row in rows):
        return ["-"] * 5
    shares = [mean(rows, f"{verdict}_fraction") for verdict in ("converged", "stalled", "out_of_steps")]
    verdicts = " / ".join("-" if share is None else f"{100 * share:.0f}" for share in shares)
    residual = mean(rows, "residual")
    return [
        verdicts,
        "-" if residual is None else f"{residual:.2g}",
        f"{min(row['least_gradient_cosine'] for row in rows):.3f}",
        rows[0]["reference"],
        f"{statistics.median(row['seconds'] for row in rows):.0f}",
    ]


REGIME = ("converged / stalled / out of steps %", "residual", "least cosine", "to", "seconds")
