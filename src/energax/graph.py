"""A network as a graph: named nodes hold states, named functions map one node to a part of another."""

from collections.abc import Callable, Collection, Mapping
from functools import lru_cache

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from energax import topology
from energax.errors import GraphError
from energax.structure import AbstractStructure, Constant, Edge, Node, States, check_names, known, out_shape
from energax.wiring import check_shapes, check_wiring


class Graph(AbstractStructure):
    """Named nodes joined by named functions; cycles are allowed, sharing is two edges with one function.

    Attributes:
        nodes: the nodes.
        edges: the edges.
        fns: name -> any `eqx.Module` or callable pytree, applied to one sample (no batch axis). All
            parameters live here.
        input: name of the node that the data clamp.
        output: name of the node that the cost reads (at the last time step).
        length: number of time steps; None for a graph without a time axis. An edge of delay d then maps
            `v_source[:, :length-d]` to what arrives at `v_target[:, d:]`; nothing arrives before t = d.

    Raises:
        GraphError: an unknown or doubled name, shapes that do not fit, a node with no path from the input or
            to the output, or a delay without a length.
    """

    nodes: tuple[Node, ...] = eqx.field(static=True, converter=tuple)
    edges: tuple[Edge, ...] = eqx.field(static=True, converter=tuple)
    fns: dict[str, Callable]
    input: str = eqx.field(static=True)
    output: str = eqx.field(static=True)
    length: int | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        check_names(self.nodes, self.input, self.output)
        check_wiring(self)
        check_shapes(self)
        arrival_order(self.nodes, self.edges)  # refuses cycles of nodes without a state

    @property
    def leading(self) -> tuple[int, ...]:
        """The time axis, where the graph has a length."""
        return () if self.length is None else (self.length,)

    @property
    def order(self) -> tuple[str, ...] | None:
        """Feed-forward order of the nodes within one time step; None where they form a cycle."""
        return feed_forward_order(self.nodes, self.edges)

    def colouring(self, names: Collection[str]) -> tuple[tuple[str, ...], ...]:
        """Blocks of nodes of which no two interact, so that each block can be settled at once."""
        direct = {node.name for node in self.nodes if not node.state}
        links = {(edge.source, edge.target) for edge in self.edges}
        for name in direct:  # two nodes joined through a node without a state do interact
            links |= {(a, b) for a, x in links if x == name for y, b in links if y == name}
        ends = tuple((a, b) for a, b in links if not {a, b} & direct)
        return topology.colouring(tuple(names), ends)

    def constant(self, clamped: States) -> Constant:
        """What the clamped nodes send to others, to be handed to `arrivals` and `predict`."""
        sums: States = {}
        for edge in self.edges:
            if edge.source in clamped:
                add_to(sums, edge.target, self._send(edge, clamped[edge.source]))
        return Constant(frozenset(clamped), sums)

    def arrivals(self, states: States, constant: Constant | None = None) -> tuple[States, States]:
        """What arrives at every receiving node, before its transform, and the values of all nodes.

        Args:
            states: the state of every node that holds one, clamped ones included.
            constant: what clamped nodes send, if it was computed before.

        Returns:
            `(arriving, values)`: sums per receiving node, and `states` with the direct nodes' values added.
        """
        done = frozenset() if constant is None else constant.sources
        arriving = {} if constant is None else dict(constant.sums)
        values = dict(states)
        for name in arrival_order(self.nodes, self.edges):
            for edge in self.edges:
                if edge.target == name and edge.source not in done:
                    add_to(arriving, name, self._send(edge, values[edge.source]))
            if not self.node(name).state:
                values[name] = self.transform(name, arriving[name])
        return arriving, values

    def predict(self, states: States, constant: Constant | None = None) -> States:
        """The prediction of every receiving node: the transform of the sum of what arrives (A, Eqs. 5 and 6)."""
        arriving, values = self.arrivals(states, constant)
        return {
            name: self.transform(name, sent) if self.node(name).state else values[name]
            for name, sent in arriving.items()
        }

    def output_value(self, states, constant=None):
        """What the cost reads: the output's state, or its prediction where it holds none; the last step's."""
        value = states[self.output] if self.node(self.output).state else self.arrivals(states, constant)[1][self.output]
        return value if self.length is None else value[:, -1]

    def transform(self, name: str, arriving: Array) -> Array:
        """Apply the node's transform to what arrives at it."""
        transform = self.node(name).transform
        return arriving if transform is None else self._mapped(self.fns[transform])(arriving)

    def sweep(
        self, values: Array | Mapping[str, Array], errors: States | None = None, constant: Constant | None = None
    ) -> States:
        """The feed-forward pass: every state takes its prediction, plus its error where one is given.

        Args:
            values: the input, shape `(batch, *shape)`, or a mapping of clamped nodes to their values.
            errors: node name -> error e; then v = vhat + e (error coordinates). Same axes as the states.
            constant: what `values` send, if it was computed before (not used along a time axis).

        Returns:
            The state of every node that holds one, clamped ones included.

        Raises:
            GraphError: the graph has a cycle within one time step.
        """
        if self.order is None:
            raise GraphError(
                f"no feed-forward pass: {known(self._cyclic())} form a cycle; start the relaxation from zeros, "
                "or give an edge of the cycle a delay and the graph a length"
            )
        clamped = self.clamp(values)
        errors = {} if errors is None else errors
        if self.length is None:
            values = self._pass(clamped, errors, self.constant(clamped) if constant is None else constant)
        else:
            values = self._scan(clamped, errors)
        return {name: value for name, value in values.items() if self.node(name).state}

    def _pass(self, clamped: States, errors: States, arriving: Constant) -> States:
        """The values of all nodes in one feed-forward pass; `arriving` holds what came from elsewhere."""
        values, sums = dict(clamped), dict(arriving.sums)
        for name in self.order or ():
            for edge in self.edges:
                if edge.target == name and edge.delay == 0 and edge.source not in arriving.sources:
                    add_to(sums, name, self._mapped(self.fns[edge.fn], 1)(values[edge.source]))
            if name not in clamped:
                values[name] = self._transform_now(name, sums[name]) + errors.get(name, 0)
        return values

    def _transform_now(self, name: str, arriving: Array) -> Array:
        transform = self.node(name).transform
        return arriving if transform is None else self._mapped(self.fns[transform], 1)(arriving)

    def _scan(self, clamped: States, errors: States) -> States:
        """The feed-forward pass along the time axis; the carry holds the values of the last few steps."""
        depth = max((edge.delay for edge in self.edges), default=0)
        like = next(iter(clamped.values()))
        empty = {node.name: jnp.zeros((depth, like.shape[0], *node.shape), like.dtype) for node in self.nodes}

        def step(carry, now):
            t, history = carry
            shown, error = now
            sums: States = {
                name: jnp.zeros((like.shape[0], *self._arrival_shape(name)), like.dtype)
                for name in arrival_order(self.nodes, self.edges)
            }
            for edge in self.edges:
                if edge.delay > 0:
                    sent = self._mapped(self.fns[edge.fn], 1)(history[edge.source][edge.delay - 1])
                    add_to(sums, edge.target, jnp.where(t >= edge.delay, sent, 0))
            values = self._pass(shown, error, Constant(frozenset(), sums))
            if depth:
                history = {n: jnp.concatenate([values[n][None], history[n][:-1]]) for n in history}
            return (t + 1, history), values

        def time_first(tree):
            return jax.tree.map(lambda a: jnp.moveaxis(a, 1, 0), tree)

        _, values = jax.lax.scan(step, (0, empty), (time_first(clamped), time_first(errors)))
        return jax.tree.map(lambda a: jnp.moveaxis(a, 0, 1), values)

    def _arrival_shape(self, name: str) -> tuple[int, ...]:
        edge = next(edge for edge in self.edges if edge.target == name)
        return out_shape(self.fns[edge.fn], self.node(edge.source).shape)

    def _send(self, edge: Edge, value: Array) -> Array:
        """What one edge adds at its target, with the delay as a shift along the time axis."""
        if edge.delay == 0:
            return self._mapped(self.fns[edge.fn])(value)
        sent = self._mapped(self.fns[edge.fn])(value[:, : value.shape[1] - edge.delay])
        return jnp.pad(sent, [(0, 0), (edge.delay, 0)] + [(0, 0)] * (sent.ndim - 2))

    def _mapped(self, fn: Callable, axes: int | None = None) -> Callable:
        """Lift a function of one sample over the batch (and the time) axis."""
        for _ in range(1 + len(self.leading) if axes is None else axes):
            fn = jax.vmap(fn)
        return fn

    def _cyclic(self) -> list[str]:
        links = [(edge.source, edge.target) for edge in self.edges if edge.delay == 0]
        return [n.name for n in self.nodes if n.name in topology.reachable([b for a, b in links if a == n.name], links)]


def add_to(sums: States, name: str, value: Array) -> None:
    """Add a contribution to a node's sum in place."""
    sums[name] = sums[name] + value if name in sums else value


@lru_cache
def feed_forward_order(nodes: tuple[Node, ...], edges: tuple[Edge, ...]) -> tuple[str, ...] | None:
    """Order of the nodes along the edges without delay; None where they form a cycle."""
    links = [(edge.source, edge.target) for edge in edges if edge.delay == 0]
    return topology.topological_order([node.name for node in nodes], links)


@lru_cache
def arrival_order(nodes: tuple[Node, ...], edges: tuple[Edge, ...]) -> tuple[str, ...]:
    """Receiving nodes, such that every node without a state comes after those without a state that it reads."""
    direct = {node.name for node in nodes if not node.state}
    links = [(edge.source, edge.target) for edge in edges if edge.source in direct]
    order = topology.topological_order([node.name for node in nodes], links)
    if order is None:
        raise GraphError(f"nodes without a state form a cycle: {known(direct)}; give one of them state=True")
    receiving = {edge.target for edge in edges}
    return tuple(name for name in order if name in receiving)
