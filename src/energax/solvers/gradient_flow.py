"""Explicit steps along the force, with momentum, bounded by the measured curvature."""

import abc
from typing import Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array

from energax.arithmetic import align_batch, choose
from energax.checking import as_setting, require_between
from energax.exceptions import SettingError
from energax.solvers.coordinates import AbstractCoordinates, AbstractView, StateCoordinates
from energax.solvers.coordinates.base import Point
from energax.solvers.engine import AbstractIteration, Stopping
from energax.solvers.spectrum import largest_curvature


class AbstractStepBound(eqx.Module):
    """How the step of an explicit scheme is kept stable."""

    @abc.abstractmethod
    def limit(self, view: AbstractView, point: Point) -> Array:
        """Largest stable step of plain gradient descent times the margin; shape `()` or `(batch,)`."""

    @abc.abstractmethod
    def calibrate(self, view: AbstractView, point: Point) -> Self:
        """The bound with what it holds measured anew."""


class PerSample(AbstractStepBound):
    """Measure the curvature of every sample at the start of every relaxation.

    Attributes:
        margin: share of 2 / curvature that is used; the estimate is a lower bound of the curvature.
        iterations: products with the Jacobian for the estimate.
    """

    margin: Array = eqx.field(converter=as_setting("PerSample: margin"), default=0.8)
    iterations: int = eqx.field(static=True, default=8)

    def limit(self, view, point):
        """Return margin * 2 / curvature, per sample."""
        return self.margin * 2 / largest_curvature(view, point, self.iterations)

    def calibrate(self, view, point):
        """Nothing is held."""
        return self


class Held(AbstractStepBound):
    """Hold one curvature between refreshes: the largest of the batch on which it was last measured.

    Cheaper than `PerSample`, and less safe: early in training the curvature can double within an epoch of a small
    data set (`benchmarks/step_bound.py --data digits --step-size 0.5`).

    A sample then depends on the training so far, as it does through the parameters, but not on its own batch.

    Attributes:
        curvature: the value held; refreshed by `calibrate`, which `fit` calls every `Learner.refresh` batches.
        margin: share of 2 / curvature that is used.
        iterations: products with the Jacobian for the estimate.
    """

    curvature: Array = eqx.field(converter=as_setting("Held: curvature"), default=0.0)
    margin: Array = eqx.field(converter=as_setting("Held: margin"), default=0.8)
    iterations: int = eqx.field(static=True, default=8)

    def limit(self, view, point):
        """Return margin * 2 / the held curvature."""
        return self.margin * 2 / self.curvature

    def calibrate(self, view, point):
        """Measure on this phase."""
        largest = jnp.max(largest_curvature(view, point, self.iterations))
        return Held(largest, self.margin, self.iterations)


class Unbounded(AbstractStepBound):
    """Take the step as given: for studying what an unstable step does."""

    def limit(self, view, point):
        """Infinity."""
        return jnp.asarray(jnp.inf)

    def calibrate(self, view, point):
        """Nothing is held."""
        return self


class _Moving(eqx.Module):
    velocity: Point
    step: Array


class GradientFlow(AbstractIteration):
    """v <- v + step * force(v), with Nesterov's momentum where it is wanted.

    The step is `min(step_size, bound)`; with momentum m the bound shrinks by (1 + m) / (1 + 2 m), the stability
    limit of Nesterov's scheme. Where a test finds that the energy rose, the sample goes back to the last test,
    loses its velocity and continues with half the step.

    Attributes:
        step_size: nominal step of the states.
        momentum: in [0, 1); 0 is plain gradient descent.
        stop: the stopping rule.
        bound: `PerSample()` (default), `Held()` or `Unbounded()`.
        coordinates: where the steps are taken.

    Reference: Millidge et al. 2023, Eq. 1; the bound is this library's own.
    """

    step_size: Array = eqx.field(converter=as_setting("GradientFlow: step_size"), default=0.1)
    momentum: Array | None = eqx.field(converter=as_setting("GradientFlow: momentum"), default=None)
    stop: Stopping = eqx.field(default_factory=Stopping)
    bound: AbstractStepBound = eqx.field(default_factory=PerSample)
    coordinates: AbstractCoordinates = eqx.field(default_factory=StateCoordinates)

    def __check_init__(self):
        if not isinstance(self.step_size, Tracer) and not jnp.all(self.step_size > 0):
            raise SettingError(f"step_size={self.step_size}: the states' step must be positive")
        if self.momentum is not None:
            require_between("GradientFlow: momentum", self.momentum, 0, 1, open_most=True)

    @property
    def nominal_step(self):
        """As given; the bound may shorten it."""
        return self.step_size

    def init(self, view, point):
        """Bound the step and start at rest."""
        limit = self.bound.limit(view, point)
        if self.momentum is not None:
            limit = limit * (1 + self.momentum) / (1 + 2 * self.momentum)
        step = bound_step(self.step_size, limit, view.norm(point))
        return _Moving({} if self.momentum is None else jax.tree.map(jnp.zeros_like, point), step)

    def step(self, view, point, carry):
        """One step of gradient descent, or of Nesterov's accelerated gradient."""
        if self.momentum is None:
            return move(point, carry.step, view.force(point)), carry
        ahead = jax.tree.map(lambda v, u: v + self.momentum * u, point, carry.velocity)
        after = move(ahead, carry.step, view.force(ahead))
        return after, _Moving(jax.tree.map(jnp.subtract, after, point), carry.step)

    def retreat(self, carry, rose):
        """Halve the step, stop, and go back."""
        if isinstance(self.bound, Unbounded):
            return carry, jnp.zeros_like(rose)
        rest = jax.tree.map(jnp.zeros_like, carry.velocity)
        return _Moving(choose(rose, rest, carry.velocity), jnp.where(rose, carry.step / 2, carry.step)), rose

    def calibrate(self, phase, start):
        """Refresh what the step bound holds."""
        return eqx.tree_at(lambda s: s.bound, self, self.bound.calibrate(*self.coordinates.view(phase, start)))


def bound_step(step_size: Array, limit: Array, like: Array) -> Array:
    """The step per sample, in the shape and precision of `like`."""
    return jnp.broadcast_to(jnp.minimum(step_size, limit), like.shape).astype(like.dtype)


def move(point: Point, step: Array, force: Point) -> Point:
    """Return v + step * force with one step per sample."""
    return jax.tree.map(lambda v, f: v + align_batch(step, v) * f, point, force)
