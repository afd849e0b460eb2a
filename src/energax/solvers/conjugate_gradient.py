"""Nonlinear conjugate gradients, per sample: the least point of the local model in the plane of force and last step."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from energax.arithmetic import add_all, choose, scale
from energax.dynamics.base import AbstractEnergy
from energax.dynamics.phase import Phase
from energax.exceptions import SettingError
from energax.solvers.coordinates import AbstractCoordinates, StateCoordinates
from energax.solvers.coordinates.base import Point
from energax.solvers.engine import AbstractIteration, Stopping


class Trial(eqx.Module):
    """The step that is being tried, and what is known of where it set out from: the best point so far.

    Attributes:
        move: the step.
        energy: F where it set out from, shape `(batch,)`; infinite before the first step.
        gain: slope of F down the step, shape `(batch,)`.
        image: of the model there.
        damping: share of the model's step that is taken, shape `(batch,)`.
    """

    move: Point
    energy: Array
    gain: Array
    image: PyTree
    damping: Array


class ConjugateGradient(AbstractIteration):
    """v <- v + a f + b s with f = -dF/dv, s the last step, and (a, b) the least point of the model in their plane.

    On a quadratic energy these are the conjugate gradients of Hestenes & Stiefel. Elsewhere nothing of the past need
    stay true but the last step's own secant, which is known without another pass. There is no step size to choose.

    F is known wherever the model is, so a step that led uphill is seen when the next one begins: that sample goes back
    and tries the step at which the parabola through both energies has its minimum. Only the last step of a relaxation
    without tests is not judged this way: a sample that it left above where the relaxation began has diverged.

    Attributes:
        stop: the stopping rule; by default tested after every step, since a step costs three sweeps.
        coordinates: where the steps are taken; `ErrorCoordinates()` where the graph allows it.

    Raises:
        SettingError: a dynamics that does not descend the gradient of an energy.

    Reference: Miele & Cantrell 1969 (memory gradient), with the model and its secant as this library's own.
    """

    stop: Stopping = eqx.field(default_factory=lambda: Stopping(check_every=1))
    coordinates: AbstractCoordinates = eqx.field(default_factory=StateCoordinates)

    def init(self, view, point):
        """Nothing is tried yet."""
        require_gradient(view.phase, type(self).__name__)
        zero, one = jax.tree.map(jnp.zeros_like, point), jnp.ones_like(view.norm(point))
        image = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(lambda: view.model(point).image))
        return Trial(zero, jnp.inf * one, 0 * one, image, one)

    def step(self, view, point, carry):
        """Judge the last step, and try the next."""
        model = view.model(point)
        # before the first step there is no last one: its energy is infinite, and nothing can be higher
        known = jnp.isfinite(carry.energy)
        rose = known & rose_above(model.energy, carry.energy)
        # what the last step did to the image tells the model's curvature along it, and costs no pass
        secant = jax.tree.map(jnp.subtract, model.image, carry.image)
        secant = choose(known, secant, jax.tree.map(jnp.zeros_like, secant))
        z, gain = model.least([model.force, carry.move], [model.push(model.force), secant])
        # where the energy rose, the same step is tried again from where it set out, only shorter: its lengths are
        # chosen, not its arrays, which are many. The force alone is dropped as an array: up there it may be no number
        share = shorten_step(carry, model.energy)
        along = jnp.where(rose, 0, carry.damping * z[0])
        again = jnp.where(rose, share, carry.damping * z[1])
        directions = [choose(rose, jax.tree.map(jnp.zeros_like, model.force), model.force), carry.move]
        trial = Trial(
            combine(directions, [along, again]),
            jnp.where(rose, carry.energy, model.energy),
            jnp.where(rose, share * carry.gain, carry.damping * gain),
            choose(rose, carry.image, model.image),
            carry.damping,
        )
        # and going back is the whole of the failed step, less the part of it that is tried
        return jax.tree.map(jnp.add, point, combine(directions, [along, again - rose.astype(again.dtype)])), trial

    def retreat(self, carry, rose):
        """Go back, forget the past, and halve the steps."""

        def forget(tree) -> Any:
            return choose(rose, jax.tree.map(jnp.zeros_like, tree), tree)

        return Trial(
            forget(carry.move),
            jnp.where(rose, jnp.inf, carry.energy),
            forget(carry.gain),
            forget(carry.image),
            jnp.where(rose, carry.damping / 2, carry.damping),
        ), rose


def rose_above(energy: Array, before: Array) -> Array:
    """Where the energy rose by more than rounding (for a cost such as log(1 + tiny) that of 1), or is no number."""
    return ~(energy <= before + 64 * jnp.finfo(energy.dtype).eps * (1 + jnp.abs(energy)))


def combine(directions: Sequence[Point], lengths: Sequence[Array]) -> Point:
    """Return sum_i lengths_i directions_i."""
    parts = [scale(length, direction) for length, direction in zip(lengths, directions, strict=True)]
    return jax.tree.map(lambda *values: add_all(values), *parts)


def shorten_step(trial: Trial, energy: Array) -> Array:
    """The share of a failed step, a tenth to a half, at which a parabola has its minimum.

    It goes through F and its slope where the step set out from, and through F where it led.
    """
    excess = energy - trial.energy + trial.gain
    share = jnp.where(excess > 0, trial.gain / jnp.where(excess > 0, 2 * excess, 1), 0.5)
    return jnp.clip(jnp.where(jnp.isfinite(share), share, 0.1), 0.1, 0.5)


def require_gradient(phase: Phase, solver: str) -> None:
    """Refuse a dynamics whose force is not the gradient of its energy."""
    if not isinstance(phase.dynamics, AbstractEnergy):
        raise SettingError(
            f"{solver} follows the gradient of an energy, and the force of {type(phase.dynamics).__name__} is none; "
            "use FixedPoint where it has block minimisers, GradientFlow or Optimistix elsewhere"
        )
