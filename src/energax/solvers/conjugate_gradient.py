"""Nonlinear conjugate gradients, per sample: the least point of the local model in the plane of force and last step."""

import equinox as eqx
import jax
import jax.numpy as jnp

from energax.coordinates import AbstractCoordinates, StateCoordinates
from energax.phase import choose
from energax.solvers.engine import Stopping
from energax.solvers.search import AbstractSearch


class ConjugateGradient(AbstractSearch):
    """v <- v + a f + b s with f = -dF/dv, s the last step, and (a, b) the least point of the model in their plane.

    On a quadratic energy these are the conjugate gradients of Hestenes & Stiefel. Elsewhere nothing of the past need
    stay true but the last step's own secant, which is known without another pass. There is no step size to choose.

    Attributes:
        stop: the stopping rule; by default tested after every step, since a step costs three sweeps.
        coordinates: where the steps are taken; `ErrorCoordinates()` where the graph allows it.

    Raises:
        SettingError: a dynamics that does not descend the gradient of an energy.

    Reference: Miele & Cantrell 1969 (memory gradient), with the model and its secant as this library's own.
    """

    stop: Stopping = eqx.field(default_factory=lambda: Stopping(check_every=1))
    coordinates: AbstractCoordinates = eqx.field(default_factory=StateCoordinates)

    def begin(self, zero, one):
        """The last step and its image, which every search remembers, are enough."""
        return ()

    def directions(self, chart, model, trial):
        """The force, and the last step with its secant."""
        secant = jax.tree.map(jnp.subtract, model.image, trial.image)
        known = jnp.isfinite(trial.energy)
        secant = choose(known, secant, jax.tree.map(jnp.zeros_like, secant))
        return [model.force, trial.move], [model.push(model.force), secant], ()
