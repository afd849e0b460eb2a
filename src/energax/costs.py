"""Costs C of an output against a target: one number per sample."""

import abc
import math
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from energax.arithmetic import add_all, total
from energax.checking import require_kind
from energax.exceptions import DataError, SettingError
from energax.metrics import ACCURACY, COST, MSE, TOP_5, Metric, name_output, perplexity, r2


class AbstractCost(eqx.Module):
    """A supervised cost. Holomorphic where it can be: complex outputs are never conjugated."""

    def of(self, name: str) -> "AbstractCost":
        """The cost of one output: itself, unless there are several."""
        return self

    @abc.abstractmethod
    def __call__(self, output: Any, target: Any) -> Array:
        """Cost per sample, shape `(batch,)`, of an output and a one-hot or real target of the same shape."""

    @abc.abstractmethod
    def quadratic(self, output: Any, target: Any) -> tuple[Array, float]:
        """`(pull, curvature)` with dC/dv = curvature * v - pull at `output`; exact for a quadratic cost.

        Block minimisers use it to place an output under a nudge exactly.
        """

    def check_targets(self, place: str, targets: np.ndarray) -> None:
        """Refuse targets of the output's shape that this cost has no meaning for. Any will do, unless said.

        Args:
            place: what to call them.
            targets: numbers, shape `(batch, *shape)`.

        Raises:
            DataError: such targets; the message names the first.
        """
        return

    def metrics(self, shape: Any) -> tuple[Metric, ...]:
        """What is told of outputs of this shape (or output -> shape), what is best chosen by first. C, unless said."""
        return (COST,)

    def probabilities(self, output: Any) -> Any:
        """The probabilities of the classes, for a cost that makes some of its output.

        Raises:
            SettingError: it makes none, unless said.
        """
        raise SettingError(f"{type(self).__name__} knows no probabilities: give CrossEntropy(), or ask for predictions")


class SquaredError(AbstractCost):
    """C = 1/2 |v - y|^2 (Millidge et al. 2023, Eq. 22, with the 1/2 and the square restored)."""

    def __call__(self, output, target):
        """Half the squared distance, summed over all axes but the batch."""
        require_same_shape(output, target)
        return total((output - target) ** 2) / 2

    def quadratic(self, output, target):
        """Exact: pull y, curvature 1."""
        return target, 1.0

    def metrics(self, shape):
        """R^2, the mean squared error, and C."""
        return (r2(shape), MSE, COST)


class CrossEntropy(AbstractCost):
    """C = -sum_k y_k log softmax(v)_k, of logits v.

    On a state output this is an energy without a lower bound for a free softmax to exploit only while it is
    nudged; with `Node(output, ..., state=False)` it is an external softmax readout (Laborieux et al. 2021).
    """

    def __call__(self, output, target):
        """Cross-entropy of the softmax over the last axis."""
        require_same_shape(output, target)
        # the shift keeps exp in range and cancels exactly, so its real part is enough for complex logits
        shift = jax.lax.stop_gradient(jnp.max(output.real, axis=-1, keepdims=True))
        shifted = output - shift
        log_sum = jnp.log(jnp.sum(jnp.exp(shifted), axis=-1))
        # two sums, not one of differences, inside which a compiler would take every log again for every class
        return total(jnp.sum(target, axis=-1) * log_sum) - total(target * shifted)

    def quadratic(self, output, target):
        """Linearised at `output`: pull y - softmax(v), curvature 0."""
        gradient = jax.grad(lambda v: jnp.sum(self(v, target)), holomorphic=jnp.iscomplexobj(output))(output)
        return -gradient, 0.0

    def check_targets(self, place, targets):
        """Probabilities: none below 0, and together 1 over the last axis."""
        sums = np.sum(targets, axis=-1, keepdims=True, dtype=float)
        bad = np.argwhere((targets < 0) | (np.abs(sums - 1) > OFF))
        if len(bad):
            where = tuple(int(i) for i in bad[0])
            raise DataError(
                f"{place} is {targets[where]:g} at index {where}, in a row that sums to {sums[(*where[:-1], 0)]:g}: "
                "CrossEntropy takes probabilities of the classes, at least 0 and together 1, or the classes as whole "
                "numbers; for other numbers take SquaredError"
            )

    def metrics(self, shape):
        """Accuracy, top 5 of more than ten classes, perplexity of several positions, and C."""
        more = (TOP_5,) if shape[-1] > MANY else ()
        positions = math.prod(shape[:-1])
        return (ACCURACY, *more, *((perplexity(positions),) if len(shape) > 1 else ()), COST)

    def probabilities(self, output):
        """Softmax over the last axis."""
        return jax.nn.softmax(output, axis=-1)


OFF = 1e-2
"""By how much probabilities may miss the sum of 1: those of half precision do."""

MANY = 10
"""Classes above which it is told whether the right one is among the best five."""


class Costs(AbstractCost):
    """One cost for every output, summed.

    Attributes:
        costs: output -> its cost.
    """

    costs: dict[str, AbstractCost]

    def __check_init__(self):
        for name, cost in self.costs.items():
            require_kind(f"cost of output {name!r}", cost, AbstractCost, "give a cost, as CrossEntropy()")

    def __call__(self, output, target):
        """Of mappings from outputs to values."""
        self._require(output, "the graph's outputs")
        self._require(target, "the targets")
        return add_all(cost(output[name], target[name]) for name, cost in self.costs.items())

    def of(self, name):
        """The cost of one output."""
        return self.costs[name]

    def metrics(self, shape: Mapping[str, Sequence[int]]):
        """Of every output, under its name; and C of all."""
        found = [name_output(m, name) for name, cost in self.costs.items() for m in cost.metrics(shape[name])]
        return (*found, COST)

    def probabilities(self, output):
        """Of every output that has some."""
        return {name: self.costs[name].probabilities(value) for name, value in output.items()}

    def quadratic(self, output, target):
        """There is none of several outputs: ask each, as `cost.of(name)`."""
        raise SettingError("several costs have no one quadratic form: ask each, as cost.of(name)")

    def _require(self, given, what: str) -> None:
        names = sorted(given) if isinstance(given, Mapping) else ["one array"]
        if names != sorted(self.costs):
            raise DataError(
                f"costs for {', '.join(sorted(self.costs))}, and {what} are {', '.join(names)}: give each output a "
                "cost and a target"
            )


def as_cost(given: AbstractCost | Mapping[str, AbstractCost]) -> AbstractCost:
    """A cost, from one or from a mapping of outputs to costs."""
    return Costs(dict(given)) if isinstance(given, Mapping) else given


def require_same_shape(output: Array, target: Array) -> None:
    """Refuse targets that would broadcast against the output, such as classes given as floating-point numbers."""
    if output.shape != target.shape:
        raise DataError(
            f"the output has shape {output.shape} and the target {target.shape}; they must be equal "
            "(one number per sample: y[:, None]; classes: whole numbers, labels.astype(int), or one-hot, "
            "jax.nn.one_hot(labels, classes))"
        )
