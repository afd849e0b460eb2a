"""A network as a graph: named nodes hold states, named functions map one node to a part of another."""

from collections.abc import Callable, Collection, Mapping
from functools import lru_cache

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from energax.exceptions import GraphError
from energax.graph import topology
from energax.graph.stacking import along
from energax.graph.structure import (
    AbstractStructure,
    Axis,
    Clamped,
    Edge,
    Node,
    States,
    add_to,
    axes_of,
    check_names,
    list_names,
    shifts_of,
)
from energax.graph.sweep import Plan, names_of, plan_sweep, sweep_nodes
from energax.graph.wiring import check_shapes, check_wiring


class Graph(AbstractStructure):
    """Named nodes joined by named functions; cycles are allowed, sharing is two edges with one function.

    Attributes:
        nodes: the nodes.
        edges: the edges.
        functions: name -> any `eqx.Module` or callable pytree, applied to one sample (no batch axis). All
            parameters live here.
        input: name of the node that the data clamp.
        output: name of the node that the cost reads (at the last time step).
        length: number of time steps: the axis `TIME` of all nodes, outermost; None for a graph without time.
            Along any axis an edge of delay d maps `v_source[:, :length-d]` to what arrives at `v_target[:, d:]`;
            nothing arrives before position d.

    Raises:
        GraphError: an unknown or doubled name, shapes that do not fit, a node with no path from the input or
            to the output, or a delay without a length.
    """

    nodes: tuple[Node, ...] = eqx.field(static=True, converter=tuple)
    edges: tuple[Edge, ...] = eqx.field(static=True, converter=tuple)
    functions: dict[str, Callable]
    input: str = eqx.field(static=True)
    output: str = eqx.field(static=True)
    length: int | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        check_names(self.nodes, self.input, self.output)
        check_wiring(self)
        check_shapes(self)
        arrival_order(self.nodes, self.edges)  # refuses cycles of nodes without a state

    def axes(self, name):
        """The time axis, where the graph has a length, then the node's own."""
        return axes_of(self.node(name), self.length)

    def shifts(self, edge: Edge) -> dict[Axis, int]:
        """The edge's delay along every axis that both its ends have."""
        return shifts_of(edge, self.axes(edge.source), self.axes(edge.target))

    @property
    def plan(self) -> Plan | None:
        """Feed-forward order of the nodes, axis within axis; None where they form a cycle without a delay."""
        return plan_sweep(self.nodes, self.edges, self.length)

    @property
    def order(self) -> tuple[str, ...] | None:
        """Feed-forward order of the nodes at one position; None where they form a cycle without a delay."""
        return None if self.plan is None else names_of(self.plan)

    def colouring(self, names: Collection[str]) -> tuple[tuple[str, ...], ...]:
        """Blocks of nodes of which no two interact, so that each block can be settled at once."""
        direct = {node.name for node in self.nodes if not node.state}
        links = {(edge.source, edge.target) for edge in self.edges}
        for name in direct:  # two nodes joined through a node without a state do interact
            links |= {(a, b) for a, x in links if x == name for y, b in links if y == name}
        ends = tuple((a, b) for a, b in links if not {a, b} & direct)
        return topology.colouring(tuple(names), ends)

    @property
    def terms(self) -> tuple[frozenset[str], ...]:
        """The states that meet in a prediction error, for every error: the node's own, and what predicts it."""
        read = self._read()
        return tuple(states | {name} for name, states in read.items() if self.node(name).state)

    @property
    def cost_term(self) -> frozenset[str]:
        """The states that the cost reads: the output, or what it is predicted from if it holds none."""
        return frozenset([self.output]) if self.node(self.output).state else self._read()[self.output]

    def _read(self) -> dict[str, frozenset[str]]:
        """Receiving node -> the states that its prediction is computed from, through nodes without one."""
        read: dict[str, frozenset[str]] = {}
        for name in arrival_order(self.nodes, self.edges):
            sources = {edge.source for edge in self.edges if edge.target == name}
            behind = (frozenset([s]) if self.node(s).state else read[s] for s in sources)
            read[name] = frozenset().union(*behind)
        return read

    def precompute(self, clamped: Clamped) -> Clamped:
        """The clamped nodes with what they send to others, for `arrivals`, `predict` and `sweep`."""
        sums: States = {}
        for edge in self.edges:
            if edge.source in clamped.values:
                add_to(sums, edge.target, self.send(edge, self.functions, clamped.values[edge.source]))
        return Clamped(clamped.values, sums, clamped.keys)

    def arrivals(self, states: States, clamped: Clamped | None = None) -> tuple[States, States]:
        """What arrives at every receiving node, before its activation, and the values of all nodes.

        Args:
            states: the state of every node that holds one, clamped ones included.
            clamped: those of them that are clamped, with what they send.

        Returns:
            `(arriving, values)`: sums per receiving node, and `states` with the direct nodes' values added.
        """
        sent = None if clamped is None else clamped.sums
        done = set() if clamped is None or sent is None else set(clamped.values)
        arriving = dict(sent or {})
        values = dict(states)
        for name in arrival_order(self.nodes, self.edges):
            for edge in self.edges:
                if edge.target == name and edge.source not in done:
                    add_to(arriving, name, self.send(edge, self.functions, values[edge.source]))
            if not self.node(name).state:
                values[name] = self.activate(name, arriving[name])
        return arriving, values

    def predict(self, states: States, clamped: Clamped | None = None) -> States:
        """The prediction of every receiving node: the activation of the sum of what arrives (A, Eqs. 5 and 6).

        Arguments as in `arrivals`.
        """
        arriving, values = self.arrivals(states, clamped)
        return {
            name: self.activate(name, sent) if self.node(name).state else values[name]
            for name, sent in arriving.items()
        }

    def output_value(self, states, clamped=None):
        """What the cost reads: the output's state, or its prediction where it holds none; the last step's."""
        value = states[self.output] if self.node(self.output).state else self.arrivals(states, clamped)[1][self.output]
        return value[(slice(None), *(-1 for _ in self.axes(self.output)))]

    def activate(
        self, name: str, arriving: Array, functions: Mapping[str, Callable] | None = None, level: int = 0
    ) -> Array:
        """Apply the node's activation to what arrives at it; `functions` and `level` as in `send`."""
        activation = self.node(name).activation
        if activation is None:
            return arriving
        return jax.vmap(along((functions or self.functions)[activation], self.axes(name)[level:]))(arriving)

    def sweep(self, values: Array | Mapping[str, Array] | Clamped, errors: States | None = None) -> States:
        """The feed-forward pass: every state takes its prediction, plus its error where one is given.

        Args:
            values: the input, shape `(batch, *shape)`, or a mapping of clamped nodes to their values, or these as a
                phase holds them.
            errors: node name -> error e; then v = vhat + e (error coordinates). Same axes as the states.

        Returns:
            The state of every node that holds one, clamped ones included.

        Raises:
            GraphError: the graph has a cycle without a delay.
        """
        if self.plan is None:
            raise GraphError(
                f"no feed-forward pass: {list_names(self._cyclic())} form a cycle; start the relaxation from zeros, "
                "or give an edge of the cycle a delay and the graph a length"
            )
        held = values if isinstance(values, Clamped) else Clamped(self.clamp(values))
        if held.sums is None:
            held = self.precompute(held)
        found = sweep_nodes(self, self.plan, held, errors or {})
        return {name: value for name, value in found.items() if self.node(name).state}

    def send(self, edge: Edge, functions: Mapping[str, Callable], value: Array, level: int = 0) -> Array:
        """What one edge adds at its target.

        Args:
            edge: the edge.
            functions: the functions.
            value: of the source, shape `(batch, *lengths, *shape)`.
            level: how many of the outermost axes are left out, because all is at one position of them.
        """
        source, target = self.axes(edge.source)[level:], self.axes(edge.target)[level:]
        both = [axis for axis in source if axis in target]
        delays = [self.shifts(edge)[axis] for axis in both]
        reached = [slice(axis.length - delay) for axis, delay in zip(both, delays, strict=True)]
        value = value[(slice(None), *reached, *(-1 for _ in source[len(both) :]))]  # leaves from the last position
        sent = jax.vmap(along(functions[edge.function], both))(value)
        entered = target[len(both) :]
        sent = jnp.expand_dims(sent, tuple(range(1 + len(both), 1 + len(target))))
        pads = [(0, 0), *((delay, 0) for delay in delays), *((0, axis.length - 1) for axis in entered)]
        return jnp.pad(sent, pads + [(0, 0)] * (sent.ndim - len(pads))) if any(map(any, pads)) else sent

    def _cyclic(self) -> list[str]:
        links = [(edge.source, edge.target) for edge in self.edges if not any(self.shifts(edge).values())]
        return [n.name for n in self.nodes if n.name in topology.reachable([b for a, b in links if a == n.name], links)]


@lru_cache
def arrival_order(nodes: tuple[Node, ...], edges: tuple[Edge, ...]) -> tuple[str, ...]:
    """Receiving nodes, such that every node without a state comes after those without a state that it reads."""
    direct = {node.name for node in nodes if not node.state}
    links = [(edge.source, edge.target) for edge in edges if edge.source in direct]
    order = topology.topological_order([node.name for node in nodes], links)
    if order is None:
        raise GraphError(f"nodes without a state form a cycle: {list_names(direct)}; give one of them state=True")
    receiving = {edge.target for edge in edges}
    return tuple(name for name in order if name in receiving)
