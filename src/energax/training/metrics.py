"""What a training tells of its batches: one table, from which sums, log, terminal, pages and answers are made.

A new number is a row of `METRICS` or `RELAXATION_METRICS`, and nothing else.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from energax.diagnostics.relaxations import Relaxations, gather_relaxations
from energax.rules.base import Info
from energax.solvers.verdict import Verdict


class Outputs(NamedTuple):
    """What a network answered to a batch.

    Attributes:
        output, target: shape `(batch, ...)`.
        cost: C per sample, shape `(batch,)`.
        weights: of every sample in the averages, shape `(batch,)`; samples without a weight do not count.
    """

    output: Any
    target: Any
    cost: Array
    weights: Array


def percent(value: float | None) -> str:
    """A share as a percentage; a dash where there is none."""
    return "-" if value is None or value != value else f"{100 * value:.2f} %"


def number(value: float | None) -> str:
    """A number with four digits; a dash where there is none."""
    return "-" if value is None or value != value else f"{value:.4g}"


@dataclasses.dataclass(frozen=True)
class Metric:
    """A number per sample, or per relaxation, that an epoch averages.

    Attributes:
        name: its key in the log. Of `METRICS`, `train_`, `validation_` and `test_` stand before it.
        title: how people are told of it.
        measure: from `Outputs` (or `Relaxations`) to an array of shape `(batch,)` (or `(relaxations,)`).
        show: its value as text.
        largest: the largest value is told instead of the weighted mean.
        brief: whether the line that the terminal shows of an epoch has it.
    """

    name: str
    title: str
    measure: Callable[[Any], Array]
    show: Callable[[float | None], str] = number
    largest: bool = False
    brief: bool = True

    def total(self, seen: Outputs | Relaxations) -> Array:
        """The weighted sum over a batch, or its largest value."""
        values, counts = self.measure(seen), seen.weights > 0
        if self.largest:
            return jnp.max(jnp.where(counts, values, 0), initial=0)
        return jnp.sum(jnp.where(counts, seen.weights * values, 0))

    def merge(self, a: Array, b: Array) -> Array:
        """The total of two batches."""
        return jnp.maximum(a, b) if self.largest else a + b

    def average(self, total: Array, weight: Array) -> float:
        """What is told of a total; NaN where nothing has a weight."""
        if not weight:
            return float("nan")
        return float(total) if self.largest else float(total) / float(weight)


def share_of(verdict: Verdict) -> Metric:
    """The share of the relaxations with this verdict."""
    word = verdict.name.lower()
    brief = verdict in (Verdict.CONVERGED, Verdict.STALLED)  # of the others the terminal warns
    return Metric(
        f"{word}_fraction",
        word.replace("_", " "),
        lambda relaxations: relaxations.result == verdict,
        percent,
        brief=brief,
    )


METRICS: tuple[Metric, ...] = (
    Metric("accuracy", "accuracy", lambda seen: jnp.argmax(seen.output, -1) == jnp.argmax(seen.target, -1), percent),
    Metric("cost", "cost", lambda seen: seen.cost),
)
"""Of every sample, from its output and its target."""

RELAXATION_METRICS: tuple[Metric, ...] = (
    *(share_of(verdict) for verdict in Verdict),
    Metric("residual", "mean residual", lambda relaxations: relaxations.residual),
    Metric("worst_residual", "largest residual", lambda relaxations: relaxations.residual, largest=True, brief=False),
    Metric("steps", "steps", lambda relaxations: relaxations.steps, brief=False),
)
"""Of every relaxation; those of phases that are known by construction took no place and do not count."""


class Sums(eqx.Module):
    """Totals of the metrics over batches, from which an epoch's averages are made.

    Attributes:
        rows: weight of all samples, before their update.
        relaxations: weight of all relaxations.
        totals: name of the metric -> its total.
    """

    rows: Array
    relaxations: Array
    totals: dict[str, Array]

    @classmethod
    def zero(cls) -> "Sums":
        """Nothing seen."""
        none = jnp.zeros(())
        return cls(none, none, {metric.name: none for metric in METRICS + RELAXATION_METRICS})

    def add_batch(self, info: Info, target: Array, weights: Array | None) -> "Sums":
        """With one more batch: what a rule reported, its targets, and the weights of its samples."""
        given = jnp.ones_like(info.cost) if weights is None else weights.astype(info.cost.dtype)
        outputs, relaxations = Outputs(info.output, target, info.cost, given), gather_relaxations(info, given)
        found = {metric.name: metric.total(outputs) for metric in METRICS}
        found |= {metric.name: metric.total(relaxations) for metric in RELAXATION_METRICS}
        return self.merge(Sums(jnp.sum(given), jnp.sum(relaxations.weights), found))

    def merge(self, other: "Sums") -> "Sums":
        """Both together."""
        totals = {
            metric.name: metric.merge(self.totals[metric.name], other.totals[metric.name])
            for metric in METRICS + RELAXATION_METRICS
        }
        return Sums(self.rows + other.rows, self.relaxations + other.relaxations, totals)

    def averages(self) -> dict[str, float]:
        """Plain numbers for the log; NaN where nothing was relaxed."""
        weights = dict.fromkeys(METRICS, self.rows) | dict.fromkeys(RELAXATION_METRICS, self.relaxations)
        return {metric.name: metric.average(self.totals[metric.name], weight) for metric, weight in weights.items()}


def name_averages(part: str, averages: dict[str, float]) -> dict[str, float]:
    """The averages as the log names them: those of `METRICS` after the part of the data that they are of."""
    own = {metric.name for metric in METRICS}
    return {f"{part}_{name}" if name in own else name: value for name, value in averages.items()}
