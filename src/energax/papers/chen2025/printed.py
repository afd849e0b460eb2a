"""The bidirectional energies of Chen et al. 2025 as they are printed: a negative result, kept to be seen."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from energax.arithmetic import add_all, total
from energax.costs import AbstractCost, CrossEntropy, as_cost
from energax.dynamics.base import AbstractEnergy, FreeGradient, Prepared, Start
from energax.dynamics.phase import Phase
from energax.dynamics.predictive_coding import PredictiveCoding
from energax.exceptions import SettingError
from energax.graph.graph import Graph
from energax.graph.parts import Edge, States
from energax.graph.structure import AnyGraph


class AbstractPrinted(AbstractEnergy):
    """Forward errors e_f = v - vhat (Eqs. 5, 6) and backward errors e_b = v - z (Eqs. 7, 8) of every free node.

    Our reading of what the paper leaves open (docs/bipc.md): z is the mean over two branches, where a node has them:
    tanh of the transposed edges to the next node above it, and tanh of its transposed edges to itself. Skips send no
    feedback, as the text says. A node without a branch, such as the one below a direct output, has no e_b. Feedback has
    the forward parameters and no bias, and its part of the parameter gradient counts. C_b, the reconstruction of the
    image, is left out. A pool is transposed along the routes that the node's state has at that moment. Training starts
    from the feed-forward pass.

    Eq. 10 does not train, and Eq. 9 falls behind with depth (docs/bipc.md). Their free phase is no equilibrium with a
    gradient of 0, so `Contrastive` refuses a scheme that leaves it out; `drop_free_term=True` runs them as printed.
    """

    cost: eqx.AbstractVar[AbstractCost]

    def prepare(self, graph, clamped, reference):
        """What the clamped nodes send."""
        return Prepared(graph.precompute(clamped))

    def start(self, phase):
        """The feed-forward pass, which is no equilibrium here."""
        return Start(PredictiveCoding(self.cost).start(phase).states)

    def free_gradient(self, graph):
        """One of its own."""
        return FreeGradient.OWN

    def energy(self, phase, states):
        """Half the sum of squares, as this library's energies are; the paper prints no half."""
        everywhere = phase.everywhere(states)
        predictions = phase.graph.predict(everywhere, phase.sent)
        forward = {n: everywhere[n] - vhat for n, vhat in predictions.items() if n in everywhere}
        feedback = predict_backward(phase, states)
        backward = {name: states[name] - z for name, z in feedback.items()}
        return add_all(total(part) / 2 for part in self.parts(forward, backward))

    @abc.abstractmethod
    def parts(self, forward: States, backward: States) -> list[Array]:
        """The squares that are summed, batch first."""


class PrintedEq9(AbstractPrinted):
    """F = sum e_f^2 + e_b^2 + C."""

    cost: AbstractCost = eqx.field(converter=as_cost, default_factory=CrossEntropy)

    def parts(self, forward, backward):
        """Both squared."""
        return [error**2 for error in (*forward.values(), *backward.values())]


class PrintedEq10(AbstractPrinted):
    """F = sum (e_f + e_b)^2 + C."""

    cost: AbstractCost = eqx.field(converter=as_cost, default_factory=CrossEntropy)

    def parts(self, forward, backward):
        """The sum squared; where there is no backward error, the forward one."""
        return [(error + backward.get(name, 0)) ** 2 for name, error in forward.items()]


def predict_backward(phase: Phase, states: States) -> States:
    """The feedback prediction z of every free node that has one (Eq. 7)."""
    branches: dict[str, list[Array]] = {}
    for way in feedback_edges(phase.graph, states):
        for name, edges in way.items():
            branches.setdefault(name, []).append(jnp.tanh(transpose(phase, states, edges, name)))
    return {name: add_all(parts) / len(parts) for name, parts in branches.items()}


def feedback_edges(graph: AnyGraph, states: States) -> tuple[dict[str, list[Edge]], ...]:
    """Of every free node its edges to the next node above it; and its edges to itself."""
    order = graph.order() or tuple(states)
    above, itself = {}, {}
    for name in states:
        leaving = [edge for edge in graph.edges if edge.source == name and edge.target in states]
        again = [edge for edge in leaving if edge.target == name]
        upward = sorted((edge for edge in leaving if edge.target != name), key=lambda edge: order.index(edge.target))
        if upward:
            above[name] = [edge for edge in upward if edge.target == upward[0].target]
        if again:
            itself[name] = again
    return above, itself


def transpose(phase: Phase, states: States, edges: list[Edge], name: str) -> Array:
    """What arrives at a node when the states at the far ends of these edges go through them backwards."""
    graph = phase.graph
    if not isinstance(graph, Graph):
        raise SettingError("the printed energies transpose edges one by one: give a Graph")

    def forward(state):
        return [graph.send(edge, graph.functions, state, clamped=phase.sent) for edge in edges]

    _, pull = jax.vjp(forward, states[name])
    return pull([states[edge.target] for edge in edges])[0]
