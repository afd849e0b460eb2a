"""Training with something measured every few batches, resumable after every epoch."""

import itertools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import energax as ex
from energax import rules
from energax.data import Dataset
from energax.papers.cells import Cells
from energax.papers.millidge2023.common import energy, network
from energax.rules.base import AbstractRule
from energax.solvers import AbstractSolver
from energax.training import checkpoint
from energax.training.device_split import make_device_split
from energax.training.epoch import stretch
from energax.training.evaluation import evaluate_device_split
from energax.training.learner import begin, root_key

Measure = Callable[[Any, ex.Batch], dict[str, float]]
"""`(graph, batch) -> numbers`, between two stretches of training."""

BATCH = 64


def learner_of(data: Dataset, seed: int, rule: AbstractRule, solver: AbstractSolver, rate: float) -> ex.Learner:
    """The paper's network under a rule, SGD with momentum .9. The gradient is divided by lambda once, by the rule."""
    return ex.Learner(network(data, seed), energy(), solver, rule, optax.sgd(rate, momentum=0.9))


def nudge(beta: float) -> AbstractRule:
    """PC-Nudge."""
    return rules.Contrastive(rules.nudge(beta))


def train_net(
    cells: Cells,
    name: str,
    learner: ex.Learner,
    data: Dataset,
    *,
    epochs: int,
    stretches: int,
    seed: int,
    measure: Measure,
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

    Returns:
        `rows`, one per stretch: training accuracy and cost before each update, the share of relaxations that
        converged or stalled, and what was measured; `test_accuracy` after each epoch.
    """
    file, kept = cells.file(f"{name}.ckpt"), {"rows": [], "test_accuracy": []}
    progress = begin(learner)
    if file.exists():
        progress, kept = checkpoint.restore(file, progress)
    train, test = (make_device_split(data, split, standardise=False) for split in (data.train, data.test))
    batches = len(data.train) // BATCH
    for epoch in range(len(kept["test_accuracy"]), epochs):
        key = jax.random.fold_in(root_key(seed), epoch + 1)
        order = jax.random.permutation(key, len(train.labels))
        edges = [batches * part // stretches for part in range(stretches + 1)]
        for first, last in itertools.pairwise(edges):
            at = eqx.tree_at(lambda l: l.graph, learner, progress.model.graph)
            progress, sums = stretch(at, progress, train, BATCH, key, jnp.asarray(first), jnp.asarray(last))
            ahead = train.batch(order[(last % batches) * BATCH :][:BATCH])
            kept["rows"].append(row(sums.averages(), epoch + last / batches) | measure(progress.model.graph, ahead))
        at = eqx.tree_at(lambda l: l.graph, learner, progress.model.graph)
        kept["test_accuracy"].append(evaluate_device_split(at, test, 500).accuracy)
        checkpoint.save(file, progress, kept)
        cells.tell(f"{name}, epoch {epoch + 1}: test accuracy {kept['test_accuracy'][-1]:.4f}")
    return kept


def row(averages: dict[str, float], epoch: float) -> dict[str, float]:
    """The averages of one stretch that the figures use."""
    settled = averages["converged_fraction"] + averages["stalled_fraction"]
    return {"epoch": epoch, "accuracy": averages["accuracy"], "cost": averages["cost"], "settled": settled}
