"""How states move: a force, or an energy whose negative gradient is the force."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from energax.costs import AbstractCost
from energax.structure import AnyGraph, Constant, States


class Context(eqx.Module):
    """What a relaxation holds constant: made once per phase by `AbstractDynamics.prepare`.

    Attributes:
        clamped: values of the clamped nodes.
        constant: what the clamped nodes send (None where the structure has no edges).
        extra: whatever else the dynamics computes once (a reference state, a linearisation).
    """

    clamped: States
    constant: Constant | None = None
    extra: Any = None

    def everywhere(self, states: States) -> States:
        """Free and clamped states together."""
        return {**self.clamped, **states}


class Start(eqx.Module):
    """Where a free phase begins.

    Attributes:
        states: states of the free nodes.
        settled: True where these are the free equilibrium by construction, so that nothing is left to relax.
    """

    states: States
    settled: bool = eqx.field(static=True, default=False)


class AbstractDynamics(eqx.Module):
    """dv/dt = force(v). The root is the force: directed networks have no energy.

    `target` and `beta` are None in a free phase, so that no label can reach it.
    """

    cost: eqx.AbstractVar[AbstractCost]

    @abc.abstractmethod
    def prepare(self, graph: AnyGraph, clamped: States, key: PRNGKeyArray | None) -> Context:
        """Compute what the phase holds constant. Runs again inside the parameter gradient.

        Args:
            graph: the network.
            clamped: node name -> value, as `graph.clamp` returns it.
            key: for random layers; None where there are none.
        """

    @abc.abstractmethod
    def start(self, graph: AnyGraph, context: Context) -> Start:
        """Where the free phase begins."""

    @abc.abstractmethod
    def force(
        self,
        graph: AnyGraph,
        states: States,
        context: Context,
        target: Array | None,
        beta: Array | None,
    ) -> States:
        """dv/dt of every free node; same shapes as `states`.

        Args:
            graph: the network.
            states: the free nodes' states.
            context: from `prepare`.
            target: what the cost compares with, shape `(batch, ...)`; None in a free phase.
            beta: nudge strength, shape `()` or `(batch,)`; None in a free phase.
        """


class AbstractTotalEnergy(AbstractDynamics):
    """A dynamics whose equilibria are stationary points of F = E + beta * C (Millidge et al. 2023, Eq. 9).

    The two subclasses differ in how they get there: down the gradient, or towards each block's own minimum.
    """

    @abc.abstractmethod
    def energy(self, graph: AnyGraph, states: States, context: Context) -> Array:
        """Internal energy E of every sample, shape `(batch,)`."""

    def total_energy(
        self,
        graph: AnyGraph,
        states: States,
        context: Context,
        target: Array | None,
        beta: Array | None,
    ) -> Array:
        """F = E + beta * C per sample; E alone in a free phase."""
        internal = self.energy(graph, states, context)
        if target is None or beta is None:
            return internal
        return internal + beta * output_cost(self, graph, states, context, target)


class AbstractEnergy(AbstractTotalEnergy):
    """Gradient descent on F: subclasses write E and inherit the force."""

    def force(self, graph, states, context, target, beta):
        """-dF/dv per sample: samples are summed, never averaged, so that none depends on the others."""
        energy, pull = jax.vjp(lambda v: self.total_energy(graph, v, context, target, beta), states)
        # a unit cotangent is the holomorphic derivative where states are complex, and the gradient where real
        return jax.tree.map(jnp.negative, pull(jnp.ones_like(energy))[0])


class AbstractBlockEnergy(AbstractTotalEnergy):
    """An energy that can minimise over one block of nodes exactly, the others held fixed.

    Its force points from every node to its own minimiser: for Hopfield energies dv/dt = rho(h) - v, which is
    the gradient flow inside a box of states and keeps to the box by itself.
    """

    @abc.abstractmethod
    def block_minimiser(
        self,
        graph: AnyGraph,
        states: States,
        context: Context,
        target: Array | None,
        beta: Array | None,
        block: tuple[str, ...],
    ) -> States:
        """New states of the nodes in `block`, which do not interact with one another."""

    def force(self, graph, states, context, target, beta):
        """Every node's own minimiser minus its state."""
        best = self.block_minimiser(graph, states, context, target, beta, tuple(states))
        return {name: best[name] - state for name, state in states.items()}


def output_cost(dynamics: AbstractDynamics, graph: AnyGraph, states: States, context: Context, target: Array) -> Array:
    """C of every sample, shape `(batch,)`."""
    return dynamics.cost(output_of(graph, states, context), target)


def output_of(graph: AnyGraph, states: States, context: Context) -> Array:
    """What the cost reads."""
    return graph.output_value(context.everywhere(states), context.constant)
