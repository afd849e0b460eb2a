"""Nonlinear conjugate gradients, per sample, with an exact line search of the local model."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from energax.coordinates import AbstractChart, AbstractCoordinates, StateCoordinates
from energax.coordinates.base import Point
from energax.phase import choose, scaled
from energax.solvers.engine import AbstractIteration, Stopping
from energax.solvers.search import require_gradient, searched


class _Searching(eqx.Module):
    force: Point
    direction: Point
    damping: Array


class ConjugateGradient(AbstractIteration):
    """d <- f + max(0, f.(f - f') / f'.f') d';  v <- v + (f.d / d.H d) d, with f = -dF/dv.

    The step comes from the curvature along d, one forward derivative: there is no step size to choose. Where a test
    finds that the energy rose, the sample goes back, forgets its direction, and goes on with half the step.

    Attributes:
        stop: the stopping rule; by default tested after every step, since a step costs three sweeps.
        coordinates: where the steps are taken; `ErrorCoordinates()` where the graph allows it.

    Raises:
        SettingError: a dynamics that does not descend the gradient of an energy.

    Reference: Polak & Ribiere 1969, with restarts where the factor would be negative.
    """

    stop: Stopping = eqx.field(default_factory=lambda: Stopping(check_every=1))
    coordinates: AbstractCoordinates = eqx.field(default_factory=StateCoordinates)

    def init(self, chart, point):
        """No direction yet."""
        require_gradient(chart.phase, type(self).__name__)
        zero = jax.tree.map(jnp.zeros_like, point)
        return _Searching(zero, zero, jnp.ones_like(chart.norm(point)))

    def step(self, chart, point, carry):
        """One line search."""
        force, curvature = chart.model(point)
        direction = conjugate(chart, force, carry)
        length = carry.damping * searched(chart, force, direction, curvature)
        after = jax.tree.map(jnp.add, point, scaled(length, direction))
        return after, _Searching(force, direction, carry.damping)

    def retreat(self, carry, rose):
        """Go back, forget the direction, and halve the steps."""
        zero = jax.tree.map(jnp.zeros_like, carry.direction)
        forgotten = choose(rose, zero, carry.force), choose(rose, zero, carry.direction)
        return _Searching(*forgotten, jnp.where(rose, carry.damping / 2, carry.damping)), rose

    def tuned(self, phase, start):
        """Nothing is measured."""
        return self


def conjugate(chart: AbstractChart, force: Point, before: _Searching) -> Point:
    """The next direction; the force itself where that would not be downhill."""
    size = chart.dot(before.force, before.force)
    change = chart.dot(force, jax.tree.map(jnp.subtract, force, before.force))
    factor = jnp.where(size > 0, jnp.maximum(change, 0) / jnp.where(size > 0, size, 1), 0)
    direction = jax.tree.map(jnp.add, force, scaled(factor, before.direction))
    return choose(chart.dot(direction, force) > 0, direction, force)
