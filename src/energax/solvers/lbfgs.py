"""L-BFGS, per sample, with the length of a step by the local model."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from energax.coordinates import AbstractChart, AbstractCoordinates, StateCoordinates
from energax.coordinates.base import Point
from energax.phase import choose, scaled
from energax.solvers.engine import Stopping
from energax.solvers.search import AbstractSearch, Trial


class _Memory(eqx.Module):
    """The last pairs, newest first: steps s, changes of the gradient y, and 1 / y.s (0 where there is no pair).

    `force` is the one from which the last step set out.
    """

    force: Point
    steps: tuple[Point, ...]
    changes: tuple[Point, ...]
    inverse: tuple[Array, ...]


class LBFGS(AbstractSearch):
    """d <- H f with H from the last `memory` pairs of steps and changes of f = -dF/dv; v <- v + a d, a by the model.

    Attributes:
        memory: pairs kept.
        stop: the stopping rule; by default tested after every step.
        coordinates: where the steps are taken.

    Raises:
        SettingError: a dynamics that does not descend the gradient of an energy.

    Reference: Nocedal 1980 (the two-loop recursion), with the model of `ConjugateGradient`.
    """

    memory: int = eqx.field(static=True, default=6)
    stop: Stopping = eqx.field(default_factory=lambda: Stopping(check_every=1))
    coordinates: AbstractCoordinates = eqx.field(default_factory=StateCoordinates)

    def begin(self, zero, one):
        """No pairs."""
        pairs = (zero,) * self.memory
        return _Memory(zero, pairs, pairs, (0 * one,) * self.memory)

    def directions(self, chart, model, trial):
        """Quasi-Newton, or the force where that leads uphill."""
        memory = remembered(chart, model.force, trial)
        direction = quasi_newton(chart, model.force, memory)
        direction = choose(chart.dot(direction, model.force) > 0, direction, model.force)
        return [direction], [model.push(direction)], memory


def remembered(chart: AbstractChart, force: Point, trial: Trial) -> _Memory:
    """The memory with the last step's pair added, where it shows positive curvature."""
    memory = trial.memory
    change = jax.tree.map(jnp.subtract, memory.force, force)  # of the gradient, which is -force
    product = chart.dot(change, trial.move)
    inverse = jnp.where(product > 0, 1 / jnp.where(product > 0, product, 1), 0)
    return _Memory(
        force,
        (trial.move, *memory.steps[:-1]),
        (change, *memory.changes[:-1]),
        (inverse, *memory.inverse[:-1]),
    )


def quasi_newton(chart: AbstractChart, force: Point, memory: _Memory) -> Point:
    """The two-loop recursion; pairs without positive curvature have no effect."""
    pairs = list(zip(memory.steps, memory.changes, memory.inverse, strict=True))
    q, weights = force, []
    for s, y, inverse in pairs:
        weights.append(inverse * chart.dot(s, q))
        q = jax.tree.map(jnp.subtract, q, scaled(weights[-1], y))
    newest = chart.dot(memory.changes[0], memory.changes[0])
    known = (memory.inverse[0] > 0) & (newest > 0)
    r = scaled(jnp.where(known, 1 / jnp.where(known, memory.inverse[0] * newest, 1), 1), q)
    for (s, y, inverse), weight in reversed(list(zip(pairs, weights, strict=True))):
        r = jax.tree.map(jnp.add, r, scaled(weight - inverse * chart.dot(y, r), s))
    return r
