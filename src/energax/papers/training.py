"""Training with something measured every few batches, resumable after every epoch."""

import itertools
import shutil
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

import energax as ex
from energax.data import Dataset
from energax.exceptions import DivergenceError
from energax.metrics import ACCURACY, COST
from energax.papers.cells import Cells, Tell
from energax.training import RunFolder, checkpoint, fit
from energax.training.callbacks import Callback
from energax.training.epoch import Cut, stretch
from energax.training.evaluation import evaluate
from energax.training.learner import Progress, begin, root_key
from energax.training.rows import make_device_split

Measure = Callable[[Progress, ex.Batch], dict[str, Any]]
"""`(progress, batch) -> numbers`, between two stretches of training."""

Row = dict[str, Any]

METRICS = (ACCURACY, COST)

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


def train_net(
    cells: Cells,
    name: str,
    learner: ex.Learner,
    data: Dataset,
    *,
    epochs: int,
    stretches: int,
    seed: int,
    measure: Measure = lambda progress, batch: {},
    batch: int = 64,
    standardise: bool = False,
    augment: bool = False,
    tested: str = "test",
) -> dict[str, Any]:
    """Train, or go on where an interrupted run finished an epoch.

    Args:
        cells: where the checkpoint goes.
        name: of the checkpoint.
        learner: what to train.
        data: the data set.
        epochs: passes over the training rows.
        stretches: measurements per epoch.
        seed: fixes the order of the rows.
        measure: what is measured after every stretch, on the rows that come next.
        batch: rows per update.
        standardise: whether pixels are normalised per channel; they stay in [0, 1] otherwise.
        augment: whether training images are augmented, as the data set says.
        tested: the split that tells the accuracy after each epoch, `test` or `validation`.

    Returns:
        `rows`, one per stretch: training accuracy and cost before each update, the share of relaxations that
        converged or stalled, and that diverged, and what was measured; `test_accuracy` (`validation_accuracy`) after
        each epoch.
    """
    file, told = cells.file(f"{name}.ckpt"), f"{tested}_accuracy"
    progress, kept = begin(learner), {"rows": [], told: []}
    if file.exists():
        progress, kept = checkpoint.restore(file, progress)
    train = make_device_split(data, data.train, standardise=standardise, augment=augment)
    held_out = make_device_split(data, getattr(data, tested), standardise=standardise)
    batches, cut = len(data.train) // batch, Cut(batch, True, METRICS)
    for epoch in range(len(kept[told]), epochs):
        key = jax.random.fold_in(root_key(seed), epoch + 1)
        order = jax.random.permutation(key, len(train.labels))
        edges = [batches * part // stretches for part in range(stretches + 1)]
        for first, last in itertools.pairwise(edges):
            at = eqx.tree_at(lambda l: l.graph, learner, progress.model.graph)
            progress, sums = stretch(at, progress, train, cut, key, jnp.asarray(first), jnp.asarray(last))
            ahead = train.batch(order[(last % batches) * batch :][:batch])
            kept["rows"].append(row(sums.averages(), epoch + last / batches) | measure(progress, ahead))
        at = eqx.tree_at(lambda l: l.graph, learner, progress.model.graph)
        kept[told].append(evaluate(at, held_out, metrics=METRICS).accuracy)
        checkpoint.save(file, progress, kept)
        cells.tell(f"{name}, epoch {epoch + 1}: {tested} accuracy {kept[told][-1]:.4f}")
    return kept


def row(averages: dict[str, float], epoch: float) -> dict[str, float]:
    """The averages of one stretch that the figures use."""
    settled = averages["converged_fraction"] + averages["stalled_fraction"]
    used = {name: averages[name] for name in ("accuracy", "cost")}
    return {"epoch": epoch, **used, "settled": settled, "diverged": averages["diverged_fraction"]}


def fit_cell(
    cells: Cells,
    name: str,
    learner: ex.Learner,
    data: Dataset,
    *,
    epochs: int,
    config: dict[str, Any],
    examine: Callable[[ex.Learner], Row] = lambda learner: {},
    **plan: Any,
) -> Row:
    """Train by `fit`, or go on where an interrupted run finished an epoch.

    Args:
        cells: where the run's folder is while it lasts.
        name: of the folder.
        learner: what to train.
        data: the data set.
        epochs: passes over the training rows.
        config: what the folder says of the learner.
        examine: what else to note of the trained learner.
        plan: batch, seed, standardise and the like, as `fit` takes them.

    Returns:
        `KEPT` of the result, and `history`: cost, accuracy and cosine of every epoch. A training whose cost is no
        number any more is a result too: `diverged` says when.
    """
    folder = RunFolder(cells.file(name))
    display = EpochLines(name, cells.tell)
    try:
        run = fit(
            learner,
            data,
            epochs=epochs,
            folder=folder,
            resume=folder.last.exists(),
            display=display,
            config=config,
            **plan,
        )
        found = {name: run.result[name] for name in KEPT}
        found |= {"history": history(run.history), "diverged": None, **examine(run.learner)}
    except DivergenceError as error:
        found = {"diverged": str(error)}
    shutil.rmtree(folder.path, ignore_errors=True)
    return found


def history(rows: Sequence[Row]) -> list[Row]:
    """The course of a run, in short."""
    names = ("epoch", "train_cost", "train_accuracy", "validation_accuracy", "gradient_cosine", "residual")
    return [{name: row[name] for name in names} for row in rows]


class EpochLines(Callback):
    """A line per epoch."""

    def __init__(self, name: str, tell: Tell):
        self._name, self._tell = name, tell

    def epoch(self, row, learner):
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
