"""L-BFGS, per sample, with a line search by the local model."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from energax.coordinates import AbstractChart, AbstractCoordinates, StateCoordinates
from energax.coordinates.base import Point
from energax.phase import scaled
from energax.solvers.engine import Stopping
from energax.solvers.search import AbstractLineSearch, Trial


class _Memory(eqx.Module):
    """The last pairs, newest first: steps s, changes of the gradient y, and 1 / y.s (0 where there is no pair)."""

    steps: tuple[Point, ...]
    changes: tuple[Point, ...]
    inverse: tuple[Array, ...]


class LBFGS(AbstractLineSearch):
    """d <- H f with H from the last `memory` pairs of steps and changes of f = -dF/dv; v <- v + (f.d / d.H d) d.

    Attributes:
        memory: pairs kept.
        stop: the stopping rule; by default tested after every step.
        coordinates: where the steps are taken.

    Raises:
        SettingError: a dynamics that does not descend the gradient of an energy.

    Reference: Nocedal 1980 (the two-loop recursion), with the line search of `ConjugateGradient`.
    """

    memory: int = eqx.field(static=True, default=6)
    stop: Stopping = eqx.field(default_factory=lambda: Stopping(check_every=1))
    coordinates: AbstractCoordinates = eqx.field(default_factory=StateCoordinates)

    def begin(self, zero, one):
        """No pairs."""
        pairs = (zero,) * self.memory
        return _Memory(pairs, pairs, (0 * one,) * self.memory)

    def direction(self, chart, force, trial):
        """Quasi-Newton."""
        memory = remembered(chart, force, trial)
        return quasi_newton(chart, force, memory), memory


def remembered(chart: AbstractChart, force: Point, trial: Trial) -> _Memory:
    """The memory with the last step's pair added, where it shows positive curvature."""
    memory, moved = trial.memory, scaled(trial.length, trial.direction)
    change = jax.tree.map(jnp.subtract, trial.force, force)  # of the gradient, which is -force
    product = chart.dot(change, moved)
    inverse = jnp.where(product > 0, 1 / jnp.where(product > 0, product, 1), 0)
    return _Memory(
        (moved, *memory.steps[:-1]),
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
