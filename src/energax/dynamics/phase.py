"""One phase: a dynamics on one batch at one nudge strength, with everything held constant computed."""

from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from energax.arithmetic import norm, subtract
from energax.dynamics.base import (
    AbstractDynamics,
    AbstractEnergy,
    AbstractErrorEnergy,
    AbstractTotalEnergy,
    Context,
    Start,
    descend,
    output_cost,
    output_of,
)
from energax.graph.structure import AnyGraph, States


class Batch(eqx.Module):
    """What a rule trains on.

    Attributes:
        x: inputs, shape `(batch, *shape)`, or a mapping from clamped nodes to their values.
        y: targets as the cost takes them, shape `(batch, ...)`.
        key: for random layers, or None.
    """

    x: Array | Mapping[str, Array]
    y: Array
    key: PRNGKeyArray | None = None


class Phase(eqx.Module):
    """What a solver settles. A free phase holds neither target nor nudge strength.

    Attributes:
        dynamics: how states move.
        graph: the network.
        context: what the phase holds constant.
        target: what the cost compares with, shape `(batch, ...)`, or None.
        beta: nudge strength, shape `()` or `(batch,)`, or None.
    """

    dynamics: AbstractDynamics
    graph: AnyGraph
    context: Context
    target: Array | None = None
    beta: Array | None = None

    def force(self, states: States) -> States:
        """dv/dt of the free nodes."""
        return self.dynamics.force(self.graph, states, self.context, self.target, self.beta)

    def rows(self, index: Array) -> "Phase":
        """The phase of some samples, shape `(rows,)`."""
        target = None if self.target is None else self.target[index]
        beta = self.beta if self.beta is None or jnp.ndim(self.beta) == 0 else self.beta[index]
        return Phase(self.dynamics, self.graph, self.context.rows(index), target, beta)

    @property
    def has_energy(self) -> bool:
        """Whether the dynamics descends an energy."""
        return isinstance(self.dynamics, AbstractTotalEnergy)

    def energy(self, states: States) -> Array:
        """Total energy F per sample, shape `(batch,)`; NaN for a dynamics without an energy."""
        if isinstance(self.dynamics, AbstractTotalEnergy):
            return self.dynamics.total_energy(self.graph, states, self.context, self.target, self.beta)
        return jnp.full_like(norm(states), jnp.nan)

    def energy_of(self, start: Start) -> Array:
        """The real part of F where a relaxation begins; errors that are 0 by construction are not computed."""
        if start.settled and isinstance(self.dynamics, AbstractErrorEnergy):
            none = jax.tree.map(jnp.zeros_like, start.states)
            return self.dynamics.error_energy(none) + self.nudge_energy(start.states)
        return jnp.real(self.energy(start.states))

    def nudge_energy(self, states: States) -> Array:
        """Beta C per sample, what a nudge adds to E; 0 in a free phase."""
        if self.target is None or self.beta is None:
            return jnp.zeros_like(norm(states))
        return self.beta * self.cost(states, self.target)

    def cost(self, states: States, target: Array) -> Array:
        """C per sample, shape `(batch,)`."""
        return output_cost(self.dynamics, self.graph, states, self.context, target)

    def output(self, states: States) -> Array:
        """What the cost reads."""
        return output_of(self.graph, states, self.context)

    def drive(self, start: States) -> Array:
        """The force that sets this phase in motion, per sample: the scale of a relative residual.

        In a free phase what the clamped nodes exert on silent ones; in a nudged phase what the nudge adds to
        the free force at `start`. Leftovers of an unfinished free phase do not count, so they cannot make a
        nudged phase look converged.
        """
        if self.target is None:
            return norm(self.force(jax.tree.map(jnp.zeros_like, start)))
        return norm(self.nudge(start))

    def nudge(self, states: States) -> States:
        """What the nudge adds to the free force."""
        if isinstance(self.dynamics, AbstractEnergy):
            return descend(self.nudge_energy, states)  # F = E + beta C
        free = Phase(self.dynamics, self.graph, self.context)
        return subtract(self.force(states), free.force(states))


def prepare_phase(
    dynamics: AbstractDynamics, graph: AnyGraph, clamped: States, key=None, target=None, beta=None
) -> Phase:
    """A phase with its context computed from the clamped values."""
    return Phase(dynamics, graph, dynamics.prepare(graph, clamped, key), target, beta)
