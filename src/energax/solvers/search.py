"""What the solvers with a line search share: one model of F per step, a trial along a direction, and its judgement."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from energax.coordinates import AbstractChart
from energax.coordinates.base import Point
from energax.dynamics import AbstractEnergy
from energax.errors import SettingError
from energax.phase import Phase, choose, scaled
from energax.solvers.engine import AbstractIteration


class Trial(eqx.Module):
    """Where a line search stands: what it set out from, and the step that is being tried.

    Attributes:
        base: the point that it set out from, the best so far.
        energy: F there, shape `(batch,)`; infinite before the first step.
        force: -dF/dpoint there.
        direction: of the step.
        length: of the step, shape `(batch,)`.
        damping: share of the model's step that is taken, shape `(batch,)`.
        memory: the solver's own.
    """

    base: Point
    energy: Array
    force: Point
    direction: Point
    length: Array
    damping: Array
    memory: Any


class AbstractLineSearch(AbstractIteration):
    """v <- v + (f.d / d.H d) d, per sample, with f = -dF/dv and a direction d of the solver's choice.

    The length comes from the curvature along d, one forward derivative. F is known wherever the model is, so a step
    that led uphill is seen when the next one begins: that sample goes back and tries the step at which the parabola
    through both energies has its minimum. A sample thus never ends above where it began, tested on the way or not.
    """

    @abc.abstractmethod
    def begin(self, zero: Point, one: Array) -> Any:
        """The memory before the first step, from zeros like the point and ones per sample."""

    @abc.abstractmethod
    def direction(self, chart: AbstractChart, force: Point, trial: Trial) -> tuple[Point, Any]:
        """Where to go next, given the force where `trial` led, and the new memory."""

    def init(self, chart, point):
        """Nothing is tried yet."""
        require_gradient(chart.phase, type(self).__name__)
        zero, one = jax.tree.map(jnp.zeros_like, point), jnp.ones_like(chart.norm(point))
        return Trial(point, jnp.inf * one, zero, zero, 0 * one, one, self.begin(zero, one))

    def step(self, chart, point, carry):
        """Judge the last step, and try the next."""
        model = chart.model(point)
        rose = uphill(model.energy, carry.energy)
        direction, memory = self.direction(chart, model.force, carry)
        direction = choose(chart.dot(direction, model.force) > 0, direction, model.force)
        length = carry.damping * minimiser(chart, model.force, direction, model.curvature)
        trial = Trial(
            choose(rose, carry.base, point),
            jnp.where(rose, carry.energy, model.energy),
            choose(rose, carry.force, model.force),
            choose(rose, carry.direction, direction),
            jnp.where(rose, shortened(chart, carry, model.energy), length),
            carry.damping,
            choose(rose, carry.memory, memory),
        )
        return ahead(trial), trial

    def retreat(self, carry, rose):
        """Go back, forget the past, and halve the steps."""

        def forget(tree) -> Any:
            return choose(rose, jax.tree.map(jnp.zeros_like, tree), tree)

        return Trial(
            carry.base,
            jnp.where(rose, jnp.inf, carry.energy),
            forget(carry.force),
            forget(carry.direction),
            forget(carry.length),
            jnp.where(rose, carry.damping / 2, carry.damping),
            forget(carry.memory),
        ), rose

    def finished(self, chart, point, carry, start):
        """The last step, taken back where it led uphill; then nothing is lost."""
        states = chart.states(point)
        rose = uphill(jnp.real(chart.phase.energy(states)), carry.energy)
        back = jax.lax.cond(jnp.any(rose), lambda: choose(rose, chart.states(carry.base), states), lambda: states)
        return back, jnp.zeros_like(rose)

    def tuned(self, phase, start):
        """Nothing is measured."""
        return self


def uphill(energy: Array, before: Array) -> Array:
    """Where the energy rose by more than the rounding of its sum, or is not a number."""
    return ~(energy <= before + 64 * jnp.finfo(energy.dtype).eps * jnp.abs(energy))


def ahead(trial: Trial) -> Point:
    """The point being tried."""
    return jax.tree.map(jnp.add, trial.base, scaled(trial.length, trial.direction))


def minimiser(chart: AbstractChart, force: Point, direction: Point, curvature) -> Array:
    """Length of the step along `direction` that minimises the local quadratic model, shape `(batch,)`.

    Where F is not convex along the direction, the size of the curvature still sets the scale (as in saddle-free
    Newton), and the judgement of the step is what guards it.
    """
    slope, bend = chart.dot(force, direction), jnp.abs(curvature(direction))
    return jnp.where(bend > 0, slope / jnp.where(bend > 0, bend, 1), 0)


def shortened(chart: AbstractChart, trial: Trial, energy: Array) -> Array:
    """The minimum of the parabola through F and its slope at the base and F where the step led; a tenth to a half."""
    gain = trial.length * chart.dot(trial.force, trial.direction)
    excess = energy - trial.energy + gain
    share = jnp.where(excess > 0, gain / jnp.where(excess > 0, 2 * excess, 1), 0.5)
    return trial.length * jnp.clip(jnp.where(jnp.isfinite(share), share, 0.1), 0.1, 0.5)


def require_gradient(phase: Phase, solver: str) -> None:
    """Refuse a dynamics whose force is not the gradient of its energy."""
    if not isinstance(phase.dynamics, AbstractEnergy):
        raise SettingError(
            f"{solver} follows the gradient of an energy, and the force of {type(phase.dynamics).__name__} is none; "
            "use FixedPoint where it has block minimisers, GradientFlow or Optimistix elsewhere"
        )
