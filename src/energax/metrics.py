"""What is told of a network's answers: numbers that are gathered batch by batch and finished at the end of an epoch.

A cost brings its own (`AbstractCost.metrics`); a metric of one's own is a `Metric` with a function from `Outputs` to
one number per sample, and is given to `train` or `fit`.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from energax.checking import require_callable
from energax.exceptions import SettingError


class Outputs(NamedTuple):
    """What a network answered to a batch.

    Attributes:
        output, target: shape `(batch, ...)`, or output -> value in a graph of several outputs; no target in
            unsupervised learning.
        cost: C per sample, shape `(batch,)`; NaN without a target.
        weights: of every sample in the averages, shape `(batch,)`; samples without a weight do not count.
        energy: F of the free phase per sample, shape `(batch,)`; NaN where there is none.
    """

    output: Any
    target: Any
    cost: Array
    weights: Array
    energy: Array | float = math.nan

    def of(self, name: str) -> "Outputs":
        """What one output of several answered."""
        return self._replace(output=self.output[name], target=self.target[name])


def percent(value: float | None) -> str:
    """A share as a percentage; a dash where there is none."""
    return "-" if value is None or value != value else f"{100 * value:.2f} %"


def number(value: float | None) -> str:
    """A number with four digits; a dash where there is none."""
    return "-" if value is None or value != value else f"{value:.4g}"


@dataclasses.dataclass(frozen=True)
class Metric:
    """The weighted mean of a number per sample.

    Attributes:
        name: its key in the log, after `train_`, `validation_` or `test_`.
        title: how people are told of it.
        measure: from `Outputs` to an array of shape `(batch,)`.
        show: its value as text.
        higher_is_better: which of two values is chosen.
        brief: whether the line that the terminal shows of an epoch has it.
        finish: from the mean to the value, as a root or an exponential.
    """

    name: str
    title: str
    measure: Callable[[Any], Array]
    show: Callable[[float | None], str] = number
    higher_is_better: bool = False
    brief: bool = True
    finish: Callable[[float], float] = lambda mean: mean

    def __post_init__(self):
        require_callable(f"metric {self.name!r}: measure", self.measure)

    def zero(self) -> PyTree:
        """The total of no samples."""
        return jnp.zeros(()), jnp.zeros(())

    def measure_samples(self, seen: Any) -> Array:
        """One number per sample, shape `(batch,)`.

        Raises:
            SettingError: the metric's function returned something of another shape.
        """
        found = self.measure(seen)
        if jnp.shape(found) != seen.weights.shape:
            raise SettingError(
                f"metric {self.name!r}: measure returned shape {jnp.shape(found)} for a batch of "
                f"{seen.weights.shape[0]}: return one number per sample, shape (batch,)"
            )
        return found

    def total(self, seen: Any) -> PyTree:
        """What a batch adds: the weighted sum, and the sum of the weights."""
        counts = seen.weights > 0
        whole = jnp.sum(jnp.where(counts, seen.weights * self.measure_samples(seen), 0))
        return whole, jnp.sum(jnp.where(counts, seen.weights, 0))

    def merge(self, a: PyTree, b: PyTree) -> PyTree:
        """The total of two batches."""
        return jax.tree.map(jnp.add, a, b)

    def value(self, total: PyTree) -> float:
        """What is told of a total; NaN where nothing has a weight."""
        whole, weight = (float(part) for part in total)
        return self.finish(whole / weight) if weight else math.nan

    def better(self, a: float, b: float) -> bool:
        """Whether `a` is better than `b`; a value that is no number is worse than any."""
        if a != a or b != b:
            return a == a
        return a > b if self.higher_is_better else a < b


class Largest(Metric):
    """The largest value instead of the mean."""

    def zero(self):
        """Nothing."""
        return jnp.zeros(()), jnp.zeros(())

    def total(self, seen):
        """The largest value of a batch."""
        counts = seen.weights > 0
        largest = jnp.max(jnp.where(counts, self.measure_samples(seen), 0), initial=0)
        return largest, jnp.sum(jnp.where(counts, seen.weights, 0))

    def merge(self, a, b):
        """The larger one."""
        return jnp.maximum(a[0], b[0]), a[1] + b[1]

    def value(self, total):
        """As it is; NaN where nothing has a weight."""
        return float(total[0]) if float(total[1]) else math.nan


@dataclasses.dataclass(frozen=True)
class R2(Metric):
    """The coefficient of determination: 1 - squared error / variance of the targets, averaged over the units.

    A unit whose targets are constant has 1 where it is met exactly and 0 otherwise (as in scikit-learn). Means and
    variances of batches are merged without cancellation (Chan et al. 1983).

    Attributes:
        units: number of units of the output.
    """

    units: int = 1

    def zero(self):
        """No rows."""
        none = jnp.zeros(self.units)
        return {"weight": jnp.zeros(()), "mean": none, "variance": none, "error": none}

    def total(self, seen):
        """Weight, mean, and sums of squares of a batch."""
        rows = len(seen.weights)
        keep = (seen.weights > 0)[:, None]
        target, output = (jnp.where(keep, a.reshape(rows, -1), 0) for a in (seen.target, seen.output))
        weights = jnp.where(keep, seen.weights[:, None], 0)
        whole = jnp.sum(weights)
        mean = jnp.sum(weights * target, 0) / jnp.where(whole > 0, whole, 1)
        return {
            "weight": whole,
            "mean": mean,
            "variance": jnp.sum(weights * (target - mean) ** 2, 0),
            "error": jnp.sum(weights * (target - output) ** 2, 0),
        }

    def merge(self, a, b):
        """Both together."""
        whole = a["weight"] + b["weight"]
        share = b["weight"] / jnp.where(whole > 0, whole, 1)
        apart = b["mean"] - a["mean"]
        return {
            "weight": whole,
            "mean": a["mean"] + share * apart,
            "variance": a["variance"] + b["variance"] + a["weight"] * share * apart**2,
            "error": a["error"] + b["error"],
        }

    def value(self, total):
        """The average over the units."""
        if not float(total["weight"]):
            return math.nan
        pairs = zip(total["variance"].tolist(), total["error"].tolist(), strict=True)
        parts = [1 - error / variance if variance > 0 else float(error == 0) for variance, error in pairs]
        return sum(parts) / len(parts)


@dataclasses.dataclass(frozen=True)
class OfOutput(Metric):
    """The metric of one output of several.

    Attributes:
        inner: what is told of it.
        output: its name.
    """

    inner: Metric = dataclasses.field(kw_only=True)
    output: str = dataclasses.field(kw_only=True)

    def zero(self):
        """The inner one's."""
        return self.inner.zero()

    def total(self, seen):
        """The inner one's, of this output."""
        return self.inner.total(seen.of(self.output))

    def merge(self, a, b):
        """The inner one's."""
        return self.inner.merge(a, b)

    def value(self, total):
        """The inner one's."""
        return self.inner.value(total)


def name_output(metric: Metric, output: str) -> Metric:
    """A metric of one output of several, under the output's name."""
    own = {f.name: getattr(metric, f.name) for f in dataclasses.fields(Metric)}
    own |= {"name": f"{output}_{metric.name}", "title": f"{output} {metric.title}"}
    return OfOutput(**own, inner=metric, output=output)


def mean_of_positions(values: Array) -> Array:
    """The mean over all axes but the first."""
    return jnp.mean(values.reshape(len(values), -1), axis=1, dtype=jnp.result_type(float))


def is_right(seen: Outputs) -> Array:
    """The share of a sample's positions at which the largest output is the target's."""
    return mean_of_positions(jnp.argmax(seen.output, -1) == jnp.argmax(seen.target, -1))


def is_among(seen: Outputs, best: int) -> Array:
    """The share of a sample's positions at which fewer than `best` outputs are larger than the target's."""
    own = jnp.sum(
        jnp.where(jnp.argmax(seen.target, -1, keepdims=True) == jnp.arange(seen.output.shape[-1]), 1, 0) * seen.output,
        -1,
        keepdims=True,
    )
    return mean_of_positions(jnp.sum(seen.output > own, -1) < best)


def squared_error(seen: Outputs) -> Array:
    """The mean over a sample's units of the squared distance."""
    return mean_of_positions((seen.output - seen.target) ** 2)


ACCURACY = Metric("accuracy", "accuracy", is_right, percent, higher_is_better=True)
"""Share of rows whose largest output is the target's; with several positions, of the positions."""

TOP_5 = Metric("top5", "top 5", lambda seen: is_among(seen, 5), percent, higher_is_better=True, brief=False)
"""Share of rows whose target is among the five largest outputs."""

COST = Metric("cost", "cost", lambda seen: seen.cost)
"""Mean C."""

ENERGY = Metric("energy", "energy", lambda seen: seen.energy)
"""Mean F of the free phase: what unsupervised learning lowers."""

MSE = Metric("mse", "mean squared error", squared_error)
"""Mean squared error per unit."""


def perplexity(positions: int) -> Metric:
    """The exponential of the mean cross-entropy of one position, of which a sample has several."""
    return Metric("perplexity", "perplexity", lambda seen: seen.cost / positions, finish=safe_exp)


def safe_exp(value: float) -> float:
    """The exponential; infinite where it is too large for a number."""
    return math.exp(value) if value < 700 else math.inf


def r2(shape: Sequence[int]) -> R2:
    """R^2 of an output of this shape."""
    return R2("r2", "R²", squared_error, higher_is_better=True, units=math.prod(shape))
