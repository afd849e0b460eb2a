"""A stretch of an epoch as one compiled call, and the sums it reports."""

from typing import cast

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from energax.rules.base import Info
from energax.solvers.verdict import Verdict
from energax.training.device_split import DeviceSplit
from energax.training.learner import Learner, Progress, strengthen_dtypes, update


class Sums(eqx.Module):
    """Sums over batches, from which an epoch's averages are made.

    Attributes:
        rows, cost, correct: over training rows, before their update.
        relaxations, residual, steps: over relaxations of all phases.
        verdicts: relaxations per `Verdict`, shape `(4,)`.
        worst: largest residual.
    """

    rows: Array
    cost: Array
    correct: Array
    relaxations: Array
    residual: Array
    steps: Array
    verdicts: Array
    worst: Array

    @classmethod
    def zero(cls) -> "Sums":
        """Nothing seen."""
        none = jnp.zeros(())
        return cls(none, none, none, none, none, none, jnp.zeros(len(Verdict)), none)

    def averages(self) -> dict[str, float]:
        """Plain numbers for the log; NaN where nothing was relaxed."""
        count = float(self.relaxations) or float("nan")
        verdicts = {f"{v.name.lower()}_fraction": float(self.verdicts[v]) / count for v in Verdict}
        return {
            "cost": float(self.cost) / float(self.rows),
            "accuracy": float(self.correct) / float(self.rows),
            "residual": float(self.residual) / count,
            "worst_residual": float(self.worst) if self.relaxations else float("nan"),
            "steps": float(self.steps) / count,
            **verdicts,
        }


def add_info(sums: Sums, info: Info, target: Array) -> Sums:
    """Add one batch."""
    phases = list(info.phases.values())
    results = jnp.concatenate([p.result for p in phases]) if phases else jnp.zeros(0, int)
    residuals = jnp.concatenate([p.residual for p in phases]) if phases else jnp.zeros(0)
    steps = jnp.concatenate([p.steps for p in phases]) if phases else jnp.zeros(0, int)
    right = jnp.argmax(info.output, -1) == jnp.argmax(target, -1)
    return Sums(
        sums.rows + info.cost.size,
        sums.cost + jnp.sum(info.cost),
        sums.correct + jnp.sum(right),
        sums.relaxations + results.size,
        sums.residual + jnp.sum(residuals),
        sums.steps + jnp.sum(steps),
        sums.verdicts + jnp.stack([jnp.sum(results == v) for v in Verdict]),
        jnp.maximum(sums.worst, jnp.max(residuals, initial=0)),
    )


def train_batches(
    learner: Learner, progress: Progress, split: DeviceSplit, size: int, key: PRNGKeyArray, first: Array, last: Array
) -> tuple[Progress, Sums]:
    """Train on batches `first` to `last` (exclusive) of the epoch whose key is given; never returns in between.

    Args:
        learner: what is trained; its graph and solver are those of `progress`.
        progress: what changes.
        split: the training rows.
        size: rows per batch.
        key: the epoch's key; the order of the rows and every batch's key follow from it alone.
        first: index of the first batch.
        last: index after the last one.
    """
    order = jax.random.permutation(key, len(split.labels))
    dynamic, static = eqx.partition((progress, Sums.zero()), eqx.is_array)

    def one(index, dynamic):
        progress, sums = eqx.combine(dynamic, static)
        rows = jax.lax.dynamic_slice(order, (index * size,), (size,))
        batch = split.batch(rows, jax.random.fold_in(key, index))
        progress, info = update(learner, progress, batch)
        return eqx.filter(
            strengthen_dtypes((progress, strengthen_dtypes(add_info(sums, info, cast(Array, batch.y))))), eqx.is_array
        )

    return eqx.combine(jax.lax.fori_loop(first, last, one, strengthen_dtypes(dynamic)), static)


stretch = eqx.filter_jit(train_batches)


@eqx.filter_jit(donate="all-except-first")
def stretch_in_place(
    given: tuple[Learner, DeviceSplit, int, PRNGKeyArray, Array, Array], progress: Progress
) -> tuple[Progress, Sums]:
    """`stretch` in the memory of `progress`, which must not be read again.

    Args:
        given: the other arguments of `stretch`; the learner without a graph and a solver, since a buffer that is given
            away must not be read by another name.
        progress: what changes.
    """
    learner, split, size, key, first, last = given
    return train_batches(learner, progress, split, size, key, first, last)
