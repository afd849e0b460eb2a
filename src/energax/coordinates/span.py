"""The span that a state cannot leave: a smaller product for the same relaxation."""

from collections.abc import Callable
from functools import reduce

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from energax.coordinates.base import AbstractChart, AbstractCoordinates, linearised
from energax.coordinates.state import StateChart, StateCoordinates
from energax.dynamics import AbstractErrorEnergy, Context, Start
from energax.graph import Graph
from energax.layers import matrix_of
from energax.phase import Phase, dot
from energax.structure import Constant, Edge, States


class SpanCoordinates(AbstractCoordinates):
    """The same relaxation as in the states, with one small product where there were two large ones.

    A node whose prediction c is constant and whose outgoing edges are all affine is moved by Pi (c - v) + sum_k delta_k
    W_k^T alone. So v = c + r rho + sum_k a_k W_k^T with r = v(0) - c, for ever: da_k/dt = -Pi a_k + delta_k, drho/dt =
    -Pi rho, and what the node sends is sum_j a_j (W_j^T W_k) plus a constant. The first hidden layer of a multi-layer
    perceptron is such a node, and its edge is the dearest product of a relaxation. Equal to the relaxation in the
    states step for step, momentum and step bound included, up to rounding.

    Nodes for which this does not hold, or would not pay, keep their states; if there is no other, nothing changes.
    """

    def chart(self, phase, start):
        """A chart with the eligible nodes in their spans; the plain one if there are none."""
        states = Start.at(start).states
        spans = eligible(phase, states)
        if not spans:
            return StateCoordinates().chart(phase, states)
        clamped = {**phase.context.clamped, **{name: span.centre for name, span in spans.items()}}
        constant = phase.graph.constant(clamped)
        context = Context(clamped, constant, phase.context.shared, phase.context.extra)
        reduced = Phase(phase.dynamics, phase.graph, context, phase.target, phase.beta)
        chart = SpanChart(phase, reduced, constant, spans)
        rest = {name: state for name, state in states.items() if name not in spans}
        return chart, (rest, {name: span.origin() for name, span in spans.items()})


class Span(eqx.Module):
    """One node's affine span; `out` counts the outgoing edges.

    Attributes:
        centre: c, shape `(batch, in)`.
        rest: r = v(0) - c, shape `(batch, in)`.
        matrix: the weights W_k side by side, shape `(in, sum of out)`.
        gram: matrix^T matrix.
        sent: r matrix, shape `(batch, sum of out)`.
        square: |r|^2, shape `(batch,)`.
        precision: Pi, shape `()`.
        edges: the outgoing edges.
    """

    centre: Array
    rest: Array
    matrix: Array
    gram: Array
    sent: Array
    square: Array
    precision: Array
    edges: tuple[Edge, ...] = eqx.field(static=True)
    sizes: tuple[int, ...] = eqx.field(static=True)

    def origin(self) -> tuple[Array, Array]:
        """`(rho, a)` of the start."""
        return jnp.ones_like(self.square), jnp.zeros_like(self.sent)

    def state(self, point) -> Array:
        """The node's state."""
        rho, a = point
        return self.centre + rho[:, None] * self.rest + a @ self.matrix.T

    def sends(self, point) -> Array:
        """What the node sends beyond what it sends from its centre, all edges side by side."""
        rho, a = point
        return a @ self.gram + rho[:, None] * self.sent

    def split(self, sums: Array) -> list[tuple[str, Array]]:
        """`(target, value)` of every edge."""
        places = [sum(self.sizes[:k]) for k in range(1, len(self.sizes))]
        parts = jnp.split(sums, places, axis=1)
        return [(edge.target, part) for edge, part in zip(self.edges, parts, strict=True)]

    def dot(self, p, q) -> Array:
        """<p, q> of the states that the coordinates stand for."""
        (rho, a), (other, b) = p, q
        return jnp.sum(a * self.sends(q) + rho[:, None] * self.sent * b, axis=1) + rho * other * self.square


class SpanChart(AbstractChart):
    """A phase whose point is `(states of the other nodes, node name -> (rho, a))`.

    Attributes:
        phase: the phase.
        reduced: the same phase with the eligible nodes clamped to their centres.
        constant: what all clamped nodes of `reduced` send.
        spans: node name -> span.
    """

    phase: Phase
    reduced: Phase
    constant: Constant
    spans: dict[str, Span]

    def states(self, point):
        """One product per eligible node."""
        rest, inside = point
        return {**rest, **{name: span.state(inside[name]) for name, span in self.spans.items()}}

    def force(self, point):
        """The phase's force, in these coordinates."""
        return self._downhill(point, lambda phase, rest: phase.energy(rest))

    def force_at_rest(self, point):
        """Down the nudge alone."""
        return self._downhill(point, lambda phase, rest: phase.nudge_energy(rest))

    def _downhill(self, point, energy: Callable[[Phase, States], Array]):
        """The force of an energy per sample without the eligible nodes' own terms, and of those."""
        rest, inside = point
        sent = {name: span.sends(inside[name]) for name, span in self.spans.items()}
        energies, pull = jax.vjp(lambda rest, sent: energy(self._receiving(sent), rest), rest, sent)
        slope, delta = pull(jnp.ones_like(energies))
        moved = {
            name: (-span.precision * inside[name][0], -span.precision * inside[name][1] - delta[name])
            for name, span in self.spans.items()
        }
        return jax.tree.map(jnp.negative, slope), moved

    def model(self, point):
        """By linearising the force."""
        return linearised(self, point)

    def dot(self, a, b):
        """That of the states."""
        inside = [span.dot(a[1][name], b[1][name]) for name, span in self.spans.items()]
        return reduce(jnp.add, inside + ([dot(a[0], b[0])] if a[0] else []))

    def probe(self, point):
        """In the states: a vector without structure in the coefficients would hide the steepest directions for long."""
        return StateChart(self.phase), self.states(point)

    def _receiving(self, sent: States) -> Phase:
        """The reduced phase, in which the eligible nodes send this."""
        context, constant = self.reduced.context, self.constant
        sums = dict(constant.sums)
        for name, span in self.spans.items():
            for target, value in span.split(sent[name]):
                sums[target] = sums[target] + value
        shifted = eqx.tree_at(lambda c: c.constant, context, Constant(constant.sources, sums))
        return eqx.tree_at(lambda phase: phase.context, self.reduced, shifted)


def eligible(phase: Phase, start: States) -> dict[str, Span]:
    """The nodes with a constant prediction that send through matrices only, small enough to pay, and their spans."""
    graph, dynamics = phase.graph, phase.dynamics
    if not isinstance(graph, Graph) or not isinstance(dynamics, AbstractErrorEnergy):
        return {}
    spans = {name: span_of(phase, graph, dynamics, name, state) for name, state in start.items() if state.ndim == 2}
    return {name: span for name, span in spans.items() if span is not None}


def span_of(phase: Phase, graph: Graph, dynamics: AbstractErrorEnergy, name: str, state: Array) -> Span | None:
    """The span of a node around its prediction, or None where it has none, or a dear one."""
    edges = tuple(edge for edge in graph.edges if edge.source == name)
    constant = phase.context.constant
    sources = {edge.source for edge in graph.edges if edge.target == name}
    weights = [matrix for edge in edges if (matrix := matrix_of(graph.fns[edge.fn])) is not None]
    if constant is None or not sources or not sources <= constant.sources or name == graph.output:
        return None
    ends = {name, *(edge.target for edge in edges)}
    if any(graph.axes(end) for end in ends):  # an edge into an axis or out of it reaches single positions
        return None
    if not edges or len(weights) < len(edges) or not dynamics.separate or jnp.iscomplexobj(state):
        return None
    precision, matrix = dynamics.precision(name), jnp.concatenate(weights, axis=1)
    if precision.size != 1 or matrix.shape[1] >= 2 * matrix.shape[0]:
        return None
    centre = graph.transform(name, constant.sums[name])
    rest = state - centre
    return Span(
        centre,
        rest,
        matrix,
        matrix.T @ matrix,
        rest @ matrix,
        jnp.sum(rest**2, axis=1),
        precision.reshape(()),
        edges,
        tuple(weight.shape[1] for weight in weights),
    )
