"""Testing: the free phase only, so that no label can reach the states."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from energax.data import Dataset, Split
from energax.dynamics.phase import Batch
from energax.rules.base import free_phase, open_batch, require_target
from energax.solvers.verdict import Verdict
from energax.training.device_split import DeviceSplit, make_device_split
from energax.training.learner import Learner


class Evaluation(NamedTuple):
    """Averages over all rows of a split, in the free phase.

    Attributes:
        accuracy: share of rows whose largest output is the label's.
        cost: mean C.
        settled: share of rows whose free phase converged or stalled.
    """

    accuracy: float
    cost: float
    settled: float


def evaluate(
    learner: Learner, data: Dataset, split: Split, *, batch: int = 500, standardise: bool = False
) -> Evaluation:
    """Test a learner on every row of a split, without a nudge.

    Args:
        learner: what to test.
        data: the data set that the split is from.
        split: one of its splits.
        batch: rows at a time.
        standardise: whether pixels are normalised per channel.
    """
    return evaluate_device_split(learner, make_device_split(data, split, standardise=standardise), batch)


def evaluate_device_split(learner: Learner, split: DeviceSplit, batch: int) -> Evaluation:
    """`evaluate`, for a split that is on the device already."""
    rows = len(split.labels)
    sums = [float(value) for value in _test(learner, split, min(batch, rows))]
    return Evaluation(*(value / rows for value in sums))


@eqx.filter_jit
def _test(learner: Learner, split: DeviceSplit, batch: int) -> Array:
    """Sums of correct rows, cost and settled rows; the last batch is filled up with rows that do not count."""
    size = len(split.labels)
    total = -(-size // batch)

    def one(index, sums):
        at = index * batch + jnp.arange(batch)
        counts = at < size
        filled = split.batch(jnp.minimum(at, size - 1))
        rows = open_batch(learner.graph, Batch(filled.x, filled.y))
        target = require_target(rows, "evaluate")
        phase, settled, _ = free_phase(learner.dynamics, learner.graph, rows, learner.solver)
        output = phase.output(settled.states)
        right = jnp.argmax(output, -1) == jnp.argmax(target, -1)
        cost = learner.dynamics.cost(output, target)
        done = (settled.result == Verdict.CONVERGED) | (settled.result == Verdict.STALLED)
        return sums + jnp.stack([jnp.sum(jnp.where(counts, value, 0)) for value in (right, cost, done)])

    return jax.lax.fori_loop(0, total, one, jnp.zeros(3))
