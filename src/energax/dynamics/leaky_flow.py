"""Directed flow networks: what leaves a unit along its synapses is lost to it, and a leak drains every unit."""

import abc
import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from energax.activations import Box, hard_sigmoid
from energax.arithmetic import add_trees, align_batch
from energax.checking import as_setting, require_between, require_kind
from energax.costs import AbstractCost, SquaredError, as_cost
from energax.dynamics.base import Prepared, Start, descend
from energax.dynamics.directed import AbstractDirected, Leak, as_graph, as_leak, leaks_of, require_leak
from energax.dynamics.phase import Phase
from energax.exceptions import GraphError
from energax.graph.parts import States
from energax.graph.structure import AnyGraph
from energax.graph.synapses import pull


class AbstractOutflow(eqx.Module):
    """What a unit loses along the synapses that leave it, for every unit of its state."""

    @abc.abstractmethod
    def rates(self, graph: AnyGraph, ones: States) -> States:
        """D of every free unit, batch first, from a state of ones of every free node."""


class SignedOutflow(AbstractOutflow):
    """D_j = sum_k W_jk, as in the DEEP of 2020."""

    def rates(self, graph, ones):
        """The sum of the weights that leave."""
        return pull(as_graph(graph), lambda weight: weight, ones)


class AbsoluteOutflow(AbstractOutflow):
    """D_j = sum_k |W_jk|: no unit gains by what it sends, so that any leak certifies any weights."""

    def rates(self, graph, ones):
        """The sum of the sizes of the weights that leave."""
        return pull(as_graph(graph), jnp.abs, ones)


class NoOutflow(AbstractOutflow):
    """D_j = 0: an additive net of leaky units in a box."""

    def rates(self, graph, ones):
        """Nothing."""
        return jax.tree.map(jnp.zeros_like, ones)


class LeakyFlow(AbstractDirected):
    """ds_j/dt = what arrives at j - (D_j + l_j) s_j - beta dC/ds_j, the states in a box.

    D is the outflow, l the leak. Without a leak and with signed outflow this is directed equilibrium propagation (DEEP;
    Farinha, Pequito, Santos & Figueiredo 2020), whose free units always have a singular Jacobian. The leak and what can
    be proved of it are this library's own (docs/directed.md); Costa & Santos 2025 announce a leaky DEEP, but their
    text was not available to compare with.

    The force is (P(s + h F) - s) / h, with P the box and F the flow: F inside, and 0 exactly at the equilibria of the
    clipped flow, at whose walls F may point outwards. A step of at most h keeps to the box, and one of h is the clipped
    Euler step. A saturated unit has no slope, so that no gradient passes it.

    Edges must be linear, biases belong to them, and nodes have no activations: the box bounds the states.

    Attributes:
        leak: l >= 0, a number, or node -> one number or one for each of its units.
        outflow: `SignedOutflow()`, `AbsoluteOutflow()` or `NoOutflow()`.
        box: where states are; `Box()` is everywhere.
        step: h; None takes 1 / max(D + l + beta), with which a unit at most forgets its state.
        cost: C.
    """

    leak: Leak = eqx.field(converter=as_leak("LeakyFlow: leak"), default=0.5)
    outflow: AbstractOutflow = eqx.field(default_factory=SignedOutflow)
    box: Box = eqx.field(default_factory=hard_sigmoid)
    step: Array | None = eqx.field(converter=as_setting("LeakyFlow: step"), default=None)
    cost: AbstractCost = eqx.field(converter=as_cost, default_factory=SquaredError)

    def __check_init__(self):
        require_leak("LeakyFlow: leak", self.leak, positive=False)
        if self.step is not None:
            require_between("LeakyFlow: step", self.step, 0, math.inf, open_least=True)
        require_kind("LeakyFlow: outflow", self.outflow, AbstractOutflow, "give one, as SignedOutflow()")
        require_kind("LeakyFlow: box", self.box, Box, "give a box, as activations.Box(0.0, 1.0)")

    def require_fit(self, graph):
        """No activations: a flow is linear inside its box."""
        require_plain(graph)

    def prepare(self, graph, clamped, reference):
        """What the clamped nodes send."""
        return Prepared(graph.precompute(clamped))

    def losses(self, graph, free):
        """D + l."""
        ones = jax.tree.map(jnp.ones_like, free)
        return add_trees(self.outflow.rates(graph, ones), leaks_of(self.leak, graph, free))

    def slope(self, graph, name):
        """1: nodes send their states."""
        return 1.0

    def safe_step(self, phase):
        """The step that was given, or that of all directed nets."""
        return super().safe_step(phase) if self.step is None else self.step

    def start(self, phase):
        """Silence, or the wall next to it."""
        return Start(jax.tree.map(self.box, phase.silence().states))

    def flow(self, phase: Phase, states: States) -> States:
        """F of every free unit, as if there were no box."""
        arriving, _ = phase.graph.arrivals(phase.everywhere(states), phase.sent)
        flow = self.lose(phase, states, arriving)
        return flow if phase.target is None else add_trees(flow, descend(phase.nudge_energy, states))

    def force(self, phase, states):
        """(P(s + h F) - s) / h."""
        flow = self.flow(phase, states)
        if self.box.unbounded:
            return flow
        step = self.safe_step(phase)

        def project(state, pull):
            h = align_batch(step, state)
            return (self.box(state + h * pull) - state) / h

        return jax.tree.map(project, states, flow)


def require_plain(graph: AnyGraph) -> None:
    """Refuse activations: a flow has none."""
    for node in graph.nodes:
        if node.activation is not None:
            raise GraphError(
                f"node {node.name!r} has the activation {node.activation!r}, and a flow is linear inside its box: "
                "leave it out, or use LeakyDirected"
            )
