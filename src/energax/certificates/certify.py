"""What can be said of a directed net before it is run."""

import math

import equinox as eqx
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array

from energax.certificates.comparison import Comparison
from energax.certificates.criteria import CRITERIA, WRITTEN_OUT
from energax.dynamics.base import AbstractDynamics
from energax.graph.graph import Graph


class Certificate(eqx.Module):
    """A proof that every phase settles at one point, or that none was found; arrays of shape `(criteria,)`.

    Attributes:
        rates: contraction rate c under each criterion, in inverse time; certified where above 0.
        stretches: how much larger than contraction allows the Euclidean norm of the force can be.
        gains: |J| where the step must be c / |J|^2, else 0.
        fastest: the largest loss of a unit, shape `()`.
        steepest: slope of the steepest activation, which a negative nudge is multiplied by.
        names: of the criteria.
    """

    rates: Array
    stretches: Array
    gains: Array
    fastest: Array
    steepest: float = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)

    def __str__(self):
        """The verdict in a line; of a traced certificate, its shapes."""
        if isinstance(self.rates, Tracer):
            return repr(self)
        if not bool(self.certified):
            return f"not certified: none of {', '.join(self.names)} holds"
        return (
            f"certified by {self.criterion}: rate {float(self.rate):.3g}, {float(self.steps(1e-2)):.0f} steps to 1e-2"
        )

    @property
    def certified(self) -> Array:
        """Whether any criterion holds, shape `()`."""
        return jnp.any(self.rates > 0)

    @property
    def best(self) -> Array:
        """Index of the criterion that promises the fewest steps, shape `()`."""
        return jnp.argmin(self._steps_of_all(1e-2, 0.0))

    @property
    def criterion(self) -> str:
        """Its name, or `none`; not for traced certificates."""
        return self.names[int(self.best)] if bool(self.certified) else "none"

    @property
    def rate(self) -> Array:
        """Contraction rate of the best criterion, shape `()`; 0 where none holds."""
        return jnp.maximum(self.rates[self.best], 0)

    @property
    def least_beta(self) -> Array:
        """Every nudge above this, of a squared error, leaves the net certified; positive ones of any strength do."""
        return -self.rate / self.steepest

    def step(self, beta: float = 0.0) -> Array:
        """The step that the best criterion holds for, under a nudge, shape `()`.

        That of `SafeStep()`, but for C4 on a flow network, which must be told (`LeakyFlow.step`).
        """
        return self._steps_and_factors(beta)[0][self.best]

    def factor(self, beta: float = 0.0) -> Array:
        """What a step leaves of the distance to the equilibrium, shape `()`; 1 where nothing is certified."""
        return self._steps_and_factors(beta)[1][self.best]

    def steps(self, tol: float, beta: float = 0.0) -> Array:
        """Steps after which the Euclidean norm of the force is below `tol` times what it was, shape `()`.

        Infinite where nothing is certified. From silence a free phase begins with a force of its drive, so that `tol`
        is the tolerance of `Stopping`.
        """
        return self._steps_of_all(tol, beta)[self.best]

    def _steps_and_factors(self, beta: float) -> tuple[Array, Array]:
        """Step and factor under each criterion; a negative nudge costs rate, any nudge shortens the step."""
        rates = self.rates - max(-beta, 0.0) * self.steepest
        step = 1 / (self.fastest + abs(beta) * max(self.steepest, 1.0))
        factor = 1 - step * rates
        gains = jnp.where(self.gains > 0, self.gains + abs(beta), 0)
        euclidean = self.gains > 0
        square = jnp.where(euclidean, gains, 1) ** 2
        shrunk = jnp.sqrt(jnp.maximum(1 - rates**2 / square, 0))
        factor = jnp.where(rates > 0, jnp.where(euclidean, shrunk, jnp.maximum(factor, 0)), 1.0)
        return jnp.where(euclidean, rates / square, step), factor

    def _steps_of_all(self, tol: float, beta: float) -> Array:
        _, factor = self._steps_and_factors(beta)
        tiny = jnp.finfo(factor.dtype).tiny
        fall = -jnp.log(jnp.maximum(factor, tiny))
        needed = jnp.log(self.stretches) - math.log(tol)
        return jnp.where(fall > 0, jnp.ceil(needed / jnp.where(fall > 0, fall, 1)), jnp.inf)


def certify(dynamics: AbstractDynamics, graph: Graph) -> Certificate:
    """The certificates of a directed net, by criteria C1 to C5 of docs/directed.md.

    Where one holds, every phase, free or nudged by a convex cost, settles from anywhere at its one equilibrium.
    Compiles; nothing is written out that a large sparse net could not hold.

    Args:
        dynamics: `LeakyFlow` or `LeakyDirected`.
        graph: the network; its edges must be linear.

    Raises:
        SettingError: another dynamics, an edge that is not linear, or an activation of unknown slope.
    """
    net = Comparison.of(dynamics, graph)
    bounds = [criterion(net) for criterion in CRITERIA]
    rates, stretches, gains = (
        jnp.stack([getattr(bound, part) for bound in bounds]) for part in ("rate", "stretch", "gain")
    )
    fastest = jnp.max(jnp.stack([jnp.max(loss) for loss in net.losses.values()]))
    # sums are rounded, and a proof must not be: by no more than their terms times eps, nor are matrices written out
    terms = jnp.minimum(net.units, jnp.maximum(net.degree(), 2 * WRITTEN_OUT))
    rates = rates - terms * jnp.finfo(rates.dtype).eps * fastest
    names = tuple(criterion.name for criterion in CRITERIA)
    return Certificate(rates, stretches, gains, fastest, net.steepest(), names)
