"""Explicit steps along the force, with momentum, bounded by the measured curvature."""

import abc
from typing import Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array

from energax.errors import SettingError
from energax.phase import Phase, choose, norm, per_sample
from energax.solvers.engine import AbstractIteration, Stopping
from energax.solvers.spectrum import largest_curvature
from energax.structure import States


class AbstractStepBound(eqx.Module):
    """How the step of an explicit scheme is kept stable."""

    @abc.abstractmethod
    def limit(self, phase: Phase, states: States) -> Array:
        """Largest stable step of plain gradient descent times the margin; shape `()` or `(batch,)`."""

    @abc.abstractmethod
    def tuned(self, phase: Phase, states: States) -> Self:
        """The bound with what it holds measured anew."""


class PerSample(AbstractStepBound):
    """Measure the curvature of every sample at the start of every relaxation.

    Attributes:
        margin: share of 2 / curvature that is used; the estimate is a lower bound of the curvature.
        iterations: power iterations.
    """

    margin: Array = eqx.field(converter=jnp.asarray, default=0.8)
    iterations: int = eqx.field(static=True, default=6)

    def limit(self, phase, states):
        """Return margin * 2 / curvature, per sample."""
        return self.margin * 2 / largest_curvature(phase, states, self.iterations)

    def tuned(self, phase, states):
        """Nothing is held."""
        return self


class Held(AbstractStepBound):
    """Hold one curvature between refreshes: the largest of the batch on which it was last measured.

    A sample then depends on the training so far, as it does through the parameters, but not on its own batch.

    Attributes:
        curvature: the value held; refreshed by `tuned`, which `fit` calls every `Recipe.refresh` batches.
        margin: share of 2 / curvature that is used.
        iterations: power iterations.
    """

    curvature: Array = eqx.field(converter=jnp.asarray, default=0.0)
    margin: Array = eqx.field(converter=jnp.asarray, default=0.8)
    iterations: int = eqx.field(static=True, default=6)

    def limit(self, phase, states):
        """Return margin * 2 / the held curvature."""
        return self.margin * 2 / self.curvature

    def tuned(self, phase, states):
        """Measure on this phase."""
        largest = jnp.max(largest_curvature(phase, states, self.iterations))
        return Held(largest, self.margin, self.iterations)


class Unbounded(AbstractStepBound):
    """Take the step as given: for studying what an unstable step does."""

    def limit(self, phase, states):
        """Infinity."""
        return jnp.asarray(jnp.inf)

    def tuned(self, phase, states):
        """Nothing is held."""
        return self


class _Moving(eqx.Module):
    velocity: States
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

    Reference: Millidge et al. 2023, Eq. 1; the bound is this library's own.
    """

    step_size: Array = eqx.field(converter=jnp.asarray, default=0.1)
    momentum: Array | None = eqx.field(converter=lambda m: None if m is None else jnp.asarray(m), default=None)
    stop: Stopping = eqx.field(default_factory=Stopping)
    bound: AbstractStepBound = eqx.field(default_factory=PerSample)

    def __check_init__(self):
        if not isinstance(self.step_size, Tracer) and not jnp.all(self.step_size > 0):
            raise SettingError(f"step_size={self.step_size}: the states' step must be positive")

    def init(self, phase, states):
        """Bound the step and start at rest."""
        limit = self.bound.limit(phase, states)
        if self.momentum is not None:
            limit = limit * (1 + self.momentum) / (1 + 2 * self.momentum)
        size = norm(states)
        step = jnp.broadcast_to(jnp.minimum(self.step_size, limit), size.shape).astype(size.dtype)
        return _Moving({} if self.momentum is None else jax.tree.map(jnp.zeros_like, states), step)

    def step(self, phase, states, carry):
        """One step of gradient descent, or of Nesterov's accelerated gradient."""
        if self.momentum is None:
            return moved(states, carry.step, phase.force(states)), carry
        ahead = jax.tree.map(lambda v, u: v + self.momentum * u, states, carry.velocity)
        after = moved(ahead, carry.step, phase.force(ahead))
        return after, _Moving(jax.tree.map(jnp.subtract, after, states), carry.step)

    def retreat(self, carry, rose):
        """Halve the step, stop, and go back."""
        if isinstance(self.bound, Unbounded):
            return carry, jnp.zeros_like(rose)
        rest = jax.tree.map(jnp.zeros_like, carry.velocity)
        return _Moving(choose(rose, rest, carry.velocity), jnp.where(rose, carry.step / 2, carry.step)), rose

    def tuned(self, phase, start):
        """Refresh what the step bound holds."""
        return eqx.tree_at(lambda s: s.bound, self, self.bound.tuned(phase, start))

    def tightened(self, tol, factor):
        """A smaller tolerance and more steps."""
        return eqx.tree_at(lambda s: s.stop, self, self.stop.tightened(tol, factor))


def moved(states: States, step: Array, force: States) -> States:
    """Return v + step * force with one step per sample."""
    return jax.tree.map(lambda v, f: v + per_sample(step, v) * f, states, force)
