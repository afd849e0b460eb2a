"""Testing: the free phase only, so that no label can reach the states."""

import dataclasses

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
from energax.training.metrics import METRICS, Outputs


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Averages over all rows of a split, in the free phase.

    Attributes:
        averages: name of each of `METRICS` -> its average.
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
    totals, settled = _test(learner, split, min(batch, rows))
    averages = {metric.name: metric.average(totals[metric.name], jnp.asarray(rows)) for metric in METRICS}
    return Evaluation(averages, float(settled) / rows)


@eqx.filter_jit
def _test(learner: Learner, split: DeviceSplit, batch: int) -> tuple[dict[str, Array], Array]:
    """Totals of the metrics, and the number of settled rows; what fills the last batch up has no weight."""
    size = len(split.labels)

    def one(index, sums):
        totals, settled = sums
        at = index * batch + jnp.arange(batch)
        filled = split.batch(jnp.minimum(at, size - 1))
        rows = open_batch(learner.graph, Batch(filled.x, filled.y))
        target = require_target(rows, "evaluate")
        phase, end, _ = free_phase(learner.dynamics, learner.graph, rows, None, learner.solver)
        output = phase.output(end.states)
        cost = learner.dynamics.cost(output, target)
        outputs = Outputs(output, target, cost, (at < size).astype(cost.dtype))
        totals = {metric.name: metric.merge(totals[metric.name], metric.total(outputs)) for metric in METRICS}
        done = (end.result == Verdict.CONVERGED) | (end.result == Verdict.STALLED)
        return totals, settled + jnp.sum(done & (at < size))

    none = {metric.name: jnp.zeros(()) for metric in METRICS}
    return jax.lax.fori_loop(0, -(-size // batch), one, (none, jnp.zeros((), int)))
