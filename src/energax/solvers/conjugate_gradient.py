"""Nonlinear conjugate gradients, per sample, with a line search by the local model."""

import equinox as eqx
import jax
import jax.numpy as jnp

from energax.coordinates import AbstractCoordinates, StateCoordinates
from energax.phase import scaled
from energax.solvers.engine import Stopping
from energax.solvers.search import AbstractLineSearch


class ConjugateGradient(AbstractLineSearch):
    """d <- f + max(0, f.(f - f') / f'.f') d';  v <- v + (f.d / d.H d) d, with f = -dF/dv.

    The step comes from the curvature along d, one forward derivative: there is no step size to choose. Where the
    energy rose, the sample goes back and takes a shorter step.

    Attributes:
        stop: the stopping rule; by default tested after every step, since a step costs three sweeps.
        coordinates: where the steps are taken; `ErrorCoordinates()` where the graph allows it.

    Raises:
        SettingError: a dynamics that does not descend the gradient of an energy.

    Reference: Polak & Ribiere 1969, with restarts where the factor would be negative.
    """

    stop: Stopping = eqx.field(default_factory=lambda: Stopping(check_every=1))
    coordinates: AbstractCoordinates = eqx.field(default_factory=StateCoordinates)

    def begin(self, zero, one):
        """The last force and direction, which every search remembers, are enough."""
        return ()

    def direction(self, chart, force, trial):
        """Conjugate to the last one."""
        size = chart.dot(trial.force, trial.force)
        change = chart.dot(force, jax.tree.map(jnp.subtract, force, trial.force))
        factor = jnp.where(size > 0, jnp.maximum(change, 0) / jnp.where(size > 0, size, 1), 0)
        return jax.tree.map(jnp.add, force, scaled(factor, trial.direction)), ()
