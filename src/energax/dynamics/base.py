"""How states move: a force, or an energy whose negative gradient is the force."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from energax.costs import AbstractCost
from energax.graph.structure import AnyGraph, Constant, States


class Context(eqx.Module):
    """What a relaxation holds constant: made once per phase by `AbstractDynamics.prepare`.

    Attributes:
        clamped: values of the clamped nodes, batch first.
        constant: what the clamped nodes send (None where the structure has no edges), batch first.
        shared: whatever else the dynamics computes once and is the same for all samples.
        extra: whatever else belongs to this batch as a whole (a reference state, a linearisation). Samples of such a
            phase are never taken apart, so a slow one keeps the others waiting.
    """

    clamped: States
    constant: Constant | None = None
    shared: Any = None
    extra: Any = None

    def everywhere(self, states: States) -> States:
        """Free and clamped states together."""
        return {**self.clamped, **states}

    def rows(self, index: Array) -> "Context":
        """The context of some samples, where there is no `extra`."""
        clamped, constant = jax.tree.map(lambda a: a[index], (self.clamped, self.constant))
        return Context(clamped, constant, self.shared)


class Start(eqx.Module):
    """Where a phase begins.

    Attributes:
        states: states of the free nodes.
        settled: True where these are the free equilibrium by construction, so that a free phase has nothing to relax.
            For an energy of prediction errors: where they are a feed-forward pass, and every error is 0.
    """

    states: States
    settled: bool = eqx.field(static=True, default=False)

    @classmethod
    def at(cls, start: "States | Start") -> "Start":
        """Of states alone nothing is known."""
        return start if isinstance(start, Start) else cls(start)


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
        return descend(lambda v: self.total_energy(graph, v, context, target, beta), states)


class AbstractErrorEnergy(AbstractEnergy):
    """An energy that is a function of the prediction errors v_n - vhat_n alone: what error coordinates need."""

    @abc.abstractmethod
    def error_energy(self, errors: States) -> Array:
        """E per sample, shape `(batch,)`, from the error of every node that receives a prediction."""

    @abc.abstractmethod
    def precision(self, name: str) -> Array:
        """Pi of a node: the curvature of E in its error at 0; a number, or an array that broadcasts with the node."""

    @property
    @abc.abstractmethod
    def separate(self) -> bool:
        """Whether E is 1/2 sum_n Pi_n |e_n|^2 exactly, so that every error pulls on its own node alone."""


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


def descend(energy: Callable[[States], Array], states: States) -> States:
    """-dF/dv of energies per sample.

    A unit cotangent is the holomorphic derivative where states are complex, and the gradient where real.
    """
    energies, pull = jax.vjp(energy, states)
    return jax.tree.map(jnp.negative, pull(jnp.ones_like(energies))[0])


def output_cost(dynamics: AbstractDynamics, graph: AnyGraph, states: States, context: Context, target: Array) -> Array:
    """C of every sample, shape `(batch,)`."""
    return dynamics.cost(output_of(graph, states, context), target)


def output_of(graph: AnyGraph, states: States, context: Context) -> Array:
    """What the cost reads."""
    return graph.output_value(context.everywhere(states), context.constant)
