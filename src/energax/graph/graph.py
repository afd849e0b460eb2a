"""A network as a graph: named nodes hold states, named functions map one node to a part of another."""

from collections.abc import Callable, Collection, Mapping
from functools import lru_cache

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from energax.exceptions import GraphError
from energax.graph import topology
from energax.graph.parts import (
    At,
    Axis,
    Clamped,
    Edge,
    Node,
    States,
    add_to,
    axes_of,
    list_names,
    place_positions,
    shifts_of,
)
from energax.graph.stacking import map_samples
from energax.graph.structure import AbstractStructure, check_names, freeze, read_outputs
from energax.graph.sweep import Plan, names_of, plan_sweep, sweep_nodes
from energax.graph.wiring import check_shapes, check_stateless, check_wiring
from energax.layers.basic import fold_in
from energax.layers.routes import route, takes_routes


class Graph(AbstractStructure):
    """Named nodes joined by named functions; cycles are allowed, sharing is two edges with one function.

    Attributes:
        nodes: the nodes.
        edges: the edges.
        functions: name -> any `eqx.Module` or callable pytree, applied to one sample (no batch axis). All
            parameters live here.
        input: name of the node that the data clamp, or several.
        output: name of the node that the cost reads, at the last position of its axes, or several; each may be an
            `At`. With several, what the cost reads and compares with is a mapping from their names.
        length: number of time steps: the axis `TIME` of all nodes, outermost; None for a graph without time.
            Along any axis an edge of delay d maps `v_source[:, :length-d]` to what arrives at `v_target[:, d:]`;
            nothing arrives before position d.

    Raises:
        GraphError: an unknown or doubled name, shapes that do not fit, a node that no input or output is joined to,
            or a delay without a length.
    """

    nodes: tuple[Node, ...] = eqx.field(static=True, converter=tuple)
    edges: tuple[Edge, ...] = eqx.field(static=True, converter=tuple)
    functions: dict[str, Callable]
    input: str | tuple[str, ...] = eqx.field(static=True, converter=freeze)
    output: str | At | tuple[str | At, ...] = eqx.field(static=True, converter=freeze)
    length: int | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        check_names(self)
        check_wiring(self)
        check_stateless(self)
        check_shapes(self)
        arrival_order(self.nodes, self.edges)  # refuses cycles of nodes without a state

    def axes(self, name):
        """The time axis, where the graph has a length, then the node's own."""
        return axes_of(self.node(name), self.length)

    def shifts(self, edge: Edge) -> dict[Axis, int]:
        """The edge's delay along every axis that both its ends have."""
        return shifts_of(edge, self.axes(edge.source), self.axes(edge.target))

    def plan(self, clamped: Collection[str] = ()) -> Plan | None:
        """Feed-forward order of the nodes, axis within axis, where some are held.

        What arrives at held nodes does not count. None where the others form a cycle without a delay.
        """
        return plan_sweep(self.nodes, tuple(e for e in self.edges if e.target not in clamped), self.length)

    def order(self, clamped: Collection[str] = ()) -> tuple[str, ...] | None:
        """Feed-forward order of the nodes at one position, as `plan`."""
        plan = self.plan(clamped)
        return None if plan is None else names_of(plan)

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
        """The states that the cost reads: the outputs, or what they are predicted from where they hold none."""
        read = self._read()
        names = (place.node for place in self.outputs)
        return frozenset().union(*(frozenset([n]) if self.node(n).state else read[n] for n in names))

    def _read(self) -> dict[str, frozenset[str]]:
        """Receiving node -> the states that its prediction is computed from, through nodes without one."""
        read: dict[str, frozenset[str]] = {}
        for name in arrival_order(self.nodes, self.edges):
            sources = {edge.source for edge in self.edges if edge.target == name}
            behind = (frozenset([s]) if self.node(s).state else read[s] for s in sources)
            read[name] = frozenset().union(*behind)
        return read

    def untouched(self, ends: Collection[str]) -> tuple[str, ...]:
        """Nodes that no edge joins, in either direction, to any of the given ones."""
        links = [pair for e in self.edges for pair in ((e.source, e.target), (e.target, e.source))]
        joined = topology.reachable(ends, links)
        return tuple(node.name for node in self.nodes if node.name not in joined)

    def precompute(self, clamped: Clamped) -> Clamped:
        """The clamped nodes with what they send to others, for `arrivals`, `predict` and `sweep`."""
        sums: States = {}
        for edge in self.edges:
            if edge.source in clamped.values:
                value = clamped.values[edge.source]
                add_to(sums, edge.target, self.send(edge, self.functions, value, clamped=clamped))
        return Clamped(clamped.values, sums, clamped.keys)

    @property
    def routed(self) -> tuple[int, ...]:
        """Numbers of the edges whose layers hold routes."""
        return tuple(i for i, edge in enumerate(self.edges) if takes_routes(self.functions[edge.function]))

    def hold_routes(self, states: States, clamped: Clamped) -> Clamped:
        """The clamped nodes, with the routes that layers take at these states; sweeps and predictions follow them.

        Args:
            states: the state of every node that holds one, clamped ones included.
            clamped: the clamped nodes, with what they send.

        Raises:
            GraphError: such a layer reads a node that has axes.
        """
        _, values = self.arrivals(states, clamped)
        routes = {}
        for number in self.routed:
            edge = self.edges[number]
            if self.axes(edge.source):
                axes = list_names(axis.name for axis in self.axes(edge.source))
                raise GraphError(
                    f"edge {edge} holds routes, and {edge.source!r} has the axes {axes}: pool by layers.maximum there, "
                    "or unroll the graph"
                )
            own = None if clamped.keys is None else fold_in(clamped.keys, number)
            _, routes[number] = route(self.functions[edge.function], values[edge.source], None, own)
        return Clamped(clamped.values, clamped.sums, clamped.keys, routes)

    def arrivals(self, states: States, clamped: Clamped | None = None) -> tuple[States, States]:
        """What arrives at every receiving node, before its activation, and the values of all nodes.

        Args:
            states: the state of every node that holds one, clamped ones included.
            clamped: those of them that are clamped, with what they send.

        Returns:
            `(arriving, values)`: sums per receiving node, and `states` with the direct nodes' values added.
        """
        sent, keys = (None, None) if clamped is None else (clamped.sums, clamped.keys)
        done = set() if clamped is None or sent is None else set(clamped.values)
        arriving = dict(sent or {})
        values = dict(states)
        for name in arrival_order(self.nodes, self.edges):
            for edge in self.edges:
                if edge.target == name and edge.source not in done:
                    add_to(arriving, name, self.send(edge, self.functions, values[edge.source], clamped=clamped))
            if not self.node(name).state:
                values[name] = self.activate(name, arriving[name], keys=keys)
        return arriving, values

    def predict(self, states: States, clamped: Clamped | None = None) -> States:
        """The prediction of every receiving node: the activation of the sum of what arrives (A, Eqs. 5 and 6).

        Arguments as in `arrivals`.
        """
        arriving, values = self.arrivals(states, clamped)
        keys = None if clamped is None else clamped.keys
        return {
            name: self.activate(name, sent, keys=keys) if self.node(name).state else values[name]
            for name, sent in arriving.items()
        }

    def output_value(self, states, clamped=None):
        """What the cost reads: the outputs' states, or their predictions where they hold none."""
        direct = any(not self.node(place.node).state for place in self.outputs)
        return read_outputs(self, self.arrivals(states, clamped)[1] if direct else states)

    def activate(
        self,
        name: str,
        arriving: Array,
        functions: Mapping[str, Callable] | None = None,
        level: int = 0,
        keys: Array | None = None,
    ) -> Array:
        """Apply the node's activation to what arrives at it; `functions`, `level` and `keys` as in `send`."""
        node = self.node(name)
        if node.activation is None:
            return arriving
        function = (functions or self.functions)[node.activation]
        own = None if keys is None else fold_in(keys, len(self.edges) + self.nodes.index(node))
        return map_samples(function, self.axes(name)[level:], arriving, own)

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
        held = values if isinstance(values, Clamped) else Clamped(self.clamp(values))
        plan = self.plan(held.values)
        if plan is None:
            raise GraphError(
                f"no feed-forward pass: {list_names(self._cyclic(held.values))} form a cycle; start the relaxation "
                "from zeros (and take Adjoint for the exact gradient), or give an edge of the cycle a delay and the "
                "graph a length"
            )
        missing = [n.name for n in self.nodes if n.name not in {*held.values, *(e.target for e in self.edges)}]
        if missing:
            raise GraphError(f"no feed-forward pass: nothing arrives at {list_names(missing)}; clamp it, or relax")
        if held.sums is None:
            held = self.precompute(held)
        found = sweep_nodes(self, plan, held, errors or {})
        return {name: value for name, value in found.items() if self.node(name).state}

    def send(
        self,
        edge: Edge,
        functions: Mapping[str, Callable],
        value: Array,
        level: int = 0,
        clamped: Clamped | None = None,
    ) -> Array:
        """What one edge adds at its target.

        Args:
            edge: the edge.
            functions: the functions.
            value: of the source, shape `(batch, *lengths, *shape)`.
            level: how many of the outermost axes are left out, because all is at one position of them.
            clamped: whose keys every random edge draws from on its own, and whose routes layers follow; or None.
        """
        number, held = self.edges.index(edge), Clamped({}) if clamped is None else clamped
        source, target = self.axes(edge.source)[level:], self.axes(edge.target)[level:]
        both = [axis for axis in source if axis in target]
        delays = [self.shifts(edge)[axis] for axis in both]
        reached = [slice(axis.length - delay) for axis, delay in zip(both, delays, strict=True)]
        left, entered = source[len(both) :], target[len(both) :]
        leaving = place_positions(f"edge {edge}", left, edge.leaves, -1)
        every = [axis for axis, position in zip(left, leaving, strict=True) if isinstance(position, slice)]
        own = None if held.keys is None else fold_in(held.keys, number)
        value = value[(slice(None), *reached, *leaving)]
        if number in held.routes:
            sent, _ = route(functions[edge.function], value, held.routes[number], own)
        else:
            sent = map_samples(functions[edge.function], both + every, value, own)
        sent = jnp.sum(sent, axis=tuple(range(1 + len(both), 1 + len(both) + len(every)))) if every else sent
        # what enters one position is nothing at the others; what enters every one is the same at all of them
        sent = jnp.expand_dims(sent, tuple(range(1 + len(both), 1 + len(target))))
        entering = place_positions(f"edge {edge}", entered, edge.enters, 0)
        shared = {1 + len(both) + i for i, position in enumerate(entering) if isinstance(position, slice)}
        if shared:
            lengths = (1,) * (1 + len(both)) + tuple(axis.length for axis in entered)
            sent = jnp.broadcast_to(sent, [lengths[i] if i in shared else size for i, size in enumerate(sent.shape)])
        pads = [(0, 0), *((delay, 0) for delay in delays)]
        for axis, position in zip(entered, entering, strict=True):
            pads.append((0, 0) if isinstance(position, slice) else (position, axis.length - 1 - position))
        return jnp.pad(sent, pads + [(0, 0)] * (sent.ndim - len(pads))) if any(map(any, pads)) else sent

    def _cyclic(self, clamped: Collection[str]) -> list[str]:
        edges = [edge for edge in self.edges if edge.target not in clamped]
        links = [(edge.source, edge.target) for edge in edges if not any(self.shifts(edge).values())]
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
