"""The span that a state cannot leave: a smaller product for the same relaxation."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from energax.coordinates.base import AbstractChart, AbstractCoordinates, linearised
from energax.coordinates.spread import spread
from energax.coordinates.state import StateChart, StateCoordinates
from energax.costs import added
from energax.dynamics import AbstractErrorEnergy, Start
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
        start = Start.at(start)
        spans = eligible(phase, start)
        if not spans:
            return StateCoordinates().chart(phase, start)
        reduced = phase.holding({name: span.centre for name, span in spans.items()})
        point = {n: spans[n].origin() if n in spans else state for n, state in start.states.items()}
        return SpanChart(phase, reduced, spans), point


class Span(eqx.Module):
    """One node's affine span; `out` counts the outgoing edges.

    Attributes:
        centre: c, shape `(batch, in)`.
        rest: r = v(0) - c, shape `(batch, in)`; the number 0 where the node is known to begin at its prediction.
        matrix: the weights W_k side by side, shape `(in, sum of out)`.
        gram: matrix^T matrix.
        sent: r matrix, shape `(batch, sum of out)`, or 0.
        square: |r|^2, shape `(batch,)`, or 0.
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
        batch, dtype = len(self.centre), self.centre.dtype
        return jnp.ones(batch, dtype), jnp.zeros((batch, len(self.gram)), dtype)

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
    """A phase whose point is node name -> `(rho, a)` in its span, or the state of a node without one.

    Attributes:
        phase: the phase.
        reduced: the same phase with the eligible nodes clamped to their centres.
        spans: node name -> span.
        unmoved: the nodes of `spans` that are still at their centres, so that they send nothing more than these do.
    """

    phase: Phase
    reduced: Phase
    spans: dict[str, Span]
    unmoved: frozenset[str] = eqx.field(static=True, default=frozenset())

    def states(self, point):
        """One product per eligible node."""
        return {name: self.spans[name].state(at) if name in self.spans else at for name, at in point.items()}

    def force(self, point):
        """The phase's force, in these coordinates."""
        others = {name: state for name, state in point.items() if name not in self.spans}
        sent = {name: self._sends(name, point[name]) for name in self.spans}
        energies, pull = jax.vjp(lambda others, sent: self._receiving(sent).energy(others), others, sent)
        slope, delta = pull(jnp.ones_like(energies))
        force = jax.tree.map(jnp.negative, slope)
        for name, span in self.spans.items():
            rho, a = point[name]
            force[name] = (-span.precision * rho, -span.precision * a - delta[name])
        return force

    def opening(self, point):
        """As far as the nudge has spread; a node that moves for the first time has not sent anything yet."""
        before: tuple[str, ...] = ()
        for names in spread(self.phase):
            held = {name: at for name, at in point.items() if name not in names}
            states = self.states(held)
            others = {name: state for name, state in states.items() if name not in self.spans}
            spans = {name: span for name, span in self.spans.items() if name in names}
            unmoved = frozenset(spans).difference(before)
            yield names, SpanChart(self.phase.holding(states), self.reduced.holding(others), spans, unmoved)
            before = names

    def model(self, point):
        """By linearising the force."""
        return linearised(self, point)

    def dot(self, a, b):
        """That of the states."""
        return added(
            self.spans[name].dot(a[name], b[name]) if name in self.spans else dot(a[name], b[name]) for name in a
        )

    def probe(self, point):
        """In the states: a vector without structure in the coefficients would hide the steepest directions for long."""
        return StateChart(self.phase), self.states(point)

    def _sends(self, name: str, at) -> Array:
        """What an eligible node sends beyond what it sends from its centre."""
        return jnp.zeros_like(at[1]) if name in self.unmoved else self.spans[name].sends(at)

    def _receiving(self, sent: States) -> Phase:
        """The reduced phase, in which the eligible nodes send this."""
        context = self.reduced.context
        constant = context.constant or Constant(frozenset(), {})
        sums = dict(constant.sums)
        for name, span in self.spans.items():
            for target, value in span.split(sent[name]):
                sums[target] = sums[target] + value
        shifted = eqx.tree_at(lambda c: c.constant, context, Constant(constant.sources, sums))
        return eqx.tree_at(lambda phase: phase.context, self.reduced, shifted)


def eligible(phase: Phase, start: Start) -> dict[str, Span]:
    """The nodes with a constant prediction that send through matrices only, small enough to pay, and their spans."""
    graph, dynamics = phase.graph, phase.dynamics
    if not isinstance(graph, Graph) or not isinstance(dynamics, AbstractErrorEnergy):
        return {}
    flat = [name for name, state in start.states.items() if state.ndim == 2]
    spans = {name: span_of(phase, graph, dynamics, name, start) for name in flat}
    return {name: span for name, span in spans.items() if span is not None}


def span_of(phase: Phase, graph: Graph, dynamics: AbstractErrorEnergy, name: str, start: Start) -> Span | None:
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
    if not edges or len(weights) < len(edges) or not dynamics.separate or jnp.iscomplexobj(start.states[name]):
        return None
    precision, matrix = dynamics.precision(name), jnp.concatenate(weights, axis=1)
    if precision.size != 1 or matrix.shape[1] >= 2 * matrix.shape[0]:
        return None
    centre = graph.transform(name, constant.sums[name])
    rest = start.states[name] - centre
    off = (rest, rest @ matrix, jnp.sum(rest**2, axis=1))
    rest, sent, square = (jnp.zeros((), centre.dtype) for _ in off) if start.settled else off
    return Span(
        centre,
        rest,
        matrix,
        matrix.T @ matrix,
        sent,
        square,
        precision.reshape(()),
        edges,
        tuple(weight.shape[1] for weight in weights),
    )
