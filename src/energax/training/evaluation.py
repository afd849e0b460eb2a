"""Testing: the free phase only, so that no label can reach the states."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from energax.dynamics.phase import Batch
from energax.exceptions import DataError
from energax.graph.structure import shape_outputs
from energax.inference.predictor import Predictor
from energax.metrics import ENERGY, Metric, Outputs
from energax.rules.base import free_phase, open_batch
from energax.solvers.verdict import Verdict
from energax.training.batches import AbstractBatches
from energax.training.rows import AbstractRows
from energax.training.stream import as_batches

Totals = tuple[dict[str, Any], Array, Array]
"""Totals of the metrics, the number of settled rows, and of all rows."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Averages over all rows, in the free phase.

    Attributes:
        averages: name of each metric -> its average.
        settled: share of rows whose free phase converged or stalled, or is known by construction.
    """

    averages: dict[str, float]
    settled: float

    @property
    def accuracy(self) -> float:
        """Share of rows whose largest output is the label's."""
        return self.averages["accuracy"]

    @property
    def cost(self) -> float:
        """Mean C."""
        return self.averages["cost"]


def metrics_of(learner: Predictor, labelled: bool) -> tuple[Metric, ...]:
    """What is told of a learner's outputs where nothing else is asked for: what its cost brings; E without targets."""
    if not labelled:
        return (ENERGY,)
    return learner.dynamics.cost.metrics(shape_outputs(learner.graph))


def evaluate(
    learner: Predictor,
    batches: AbstractBatches | AbstractRows | Any,
    *,
    metrics: tuple[Metric, ...] | None = None,
    batch: int = 500,
) -> Evaluation:
    """Test a learner on every row, without a nudge.

    Args:
        learner: what to test.
        batches: the rows, as `train` takes them: `(x, y)`, `Arrays(x, y)`, or an iterable of batches.
        metrics: what is told; left out, what the cost brings (`ENERGY` where there are no targets).
        batch: rows at a time.

    Raises:
        DataError: no rows, or such as do not fit the graph.
    """
    source = as_batches("evaluate: batches", batches)
    source.bind(learner.graph, learner.dynamics.cost)
    if metrics is None:
        metrics = metrics_of(learner, source.probe().y is not None)
    found: Totals | None = None
    for rows, size in source.test(batch):
        tested = (
            evaluate_rows(learner, rows, size, metrics)
            if isinstance(rows, AbstractRows)
            else (evaluate_batch(learner, rows, metrics))
        )
        found = tested if found is None else merge_totals(metrics, found, tested)
    if found is None:
        raise DataError("evaluate: the batches hold no rows (an iterator can be read once): give some")
    totals, settled, count = found
    return Evaluation({m.name: m.value(totals[m.name]) for m in metrics}, float(settled) / float(count))


def merge_totals(metrics: tuple[Metric, ...], a: Totals, b: Totals) -> Totals:
    """Both together."""
    return {m.name: m.merge(a[0][m.name], b[0][m.name]) for m in metrics}, a[1] + b[1], a[2] + b[2]


def total_batch(learner: Predictor, batch: Batch, metrics: tuple[Metric, ...]) -> Totals:
    """What one batch adds; rows without a weight do not count."""
    sampling = learner.solver.samples
    key = jax.random.key(0) if sampling else None  # the same draws in every test; layers draw nothing otherwise
    rows = open_batch(learner.graph, Batch(batch.x, batch.y, key, known=batch.known))
    phase, end, _ = free_phase(learner.dynamics, learner.graph, rows, learner.solver, samples=sampling)
    output = phase.output(end.states)
    none = jnp.full(rows.weights.shape, jnp.nan, rows.weights.dtype)
    cost = none if rows.target is None else learner.dynamics.cost(output, rows.target)
    weights = jnp.ones_like(rows.weights) if batch.weights is None else batch.weights.astype(rows.weights.dtype)
    energy = jnp.real(phase.energy(end.states)) if any(metric is ENERGY for metric in metrics) else none
    outputs = Outputs(output, rows.target, cost, weights, energy)
    done = (end.result != Verdict.OUT_OF_STEPS) & (end.result != Verdict.DIVERGED)
    counts = weights > 0
    return {m.name: m.total(outputs) for m in metrics}, jnp.sum(done & counts), jnp.sum(counts)


@eqx.filter_jit
def evaluate_batch(learner: Predictor, batch: Batch, metrics: tuple[Metric, ...]) -> Totals:
    """One batch of a stream."""
    return total_batch(learner, batch, metrics)


@eqx.filter_jit
def evaluate_rows(learner: Predictor, rows: AbstractRows, size: int, metrics: tuple[Metric, ...]) -> Totals:
    """All rows, so many at a time; what fills the last batch up has no weight."""
    count = len(rows)

    def one(index, sums):
        at = index * size + jnp.arange(size)
        filled = rows.batch(jnp.minimum(at, count - 1))
        given = 1.0 if filled.weights is None else filled.weights
        batch = dataclasses.replace(filled, weights=jnp.where(at < count, given, 0.0))
        return merge_totals(metrics, sums, total_batch(learner, batch, metrics))

    none = {m.name: m.zero() for m in metrics}, jnp.zeros((), int), jnp.zeros((), int)
    return jax.lax.fori_loop(0, -(-count // size), one, none)
