"""A network as a graph: named nodes hold states, named functions map one node to a part of another."""

import abc
import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from energax import topology
from energax.errors import DataError, GraphError

States = dict[str, Array]
"""Node name -> its state, shape `(batch, *node.shape)`, or `(batch, length, *node.shape)` with a time axis."""


@dataclasses.dataclass(frozen=True)
class Node:
    """A named place in a graph.

    Attributes:
        name: unique in the graph.
        shape: shape of one sample's state, without batch and time; channels last for images.
        transform: name in `Graph.fns` of the map applied to the sum of what arrives (an activation), or None.
        state: False for a node that holds no state of its own: its value *is* its prediction (a direct
            output, a readout, a pooling stage).
    """

    name: str
    shape: tuple[int, ...]
    transform: str | None = None
    state: bool = True


@dataclasses.dataclass(frozen=True)
class Edge:
    """A map from one node's state to a part of what arrives at another.

    Attributes:
        source: name of the node that is read.
        target: name of the node that receives.
        fn: name in `Graph.fns`; two edges that name one function share its parameters.
        delay: time steps from source to target; needs a graph with a `length`.
    """

    source: str
    target: str
    fn: str
    delay: int = 0

    def __str__(self):
        return f"{self.source} -> {self.target} ({self.fn})"


class Constant(eqx.Module):
    """What a set of clamped nodes sends, summed per target: computed once per phase, not once per step."""

    sources: frozenset[str] = eqx.field(static=True)
    sums: States


class AbstractStructure(eqx.Module):
    """What solvers and rules need to know of a network: its nodes, its input and its output."""

    nodes: eqx.AbstractVar[tuple[Node, ...]]
    fns: eqx.AbstractVar[Any]
    input: eqx.AbstractVar[str]
    output: eqx.AbstractVar[str]

    @property
    @abc.abstractmethod
    def leading(self) -> tuple[int, ...]:
        """Axes between the batch and a node's own shape (the time axis, where there is one)."""

    @abc.abstractmethod
    def output_value(self, states: States, constant: Constant | None = None) -> Array:
        """What the cost reads, shape `(batch, *shape)`."""

    def node(self, name: str) -> Node:
        """The node of this name; `GraphError` lists the known ones otherwise."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise GraphError(f"unknown node {name!r}; the graph has: {known(node.name for node in self.nodes)}")

    def free(self, clamped: Collection[str]) -> tuple[str, ...]:
        """Names of the nodes that hold a state and are not clamped."""
        return tuple(node.name for node in self.nodes if node.state and node.name not in clamped)

    def zeros(self, names: Collection[str], like: Array) -> States:
        """Zero states for `names`, with the batch size and the dtype of `like`."""
        return {
            name: jnp.zeros((like.shape[0], *self.leading, *self.node(name).shape), like.dtype)
            for name in names
        }

    def clamp(self, values: Array | Mapping[str, Array]) -> States:
        """Check the values of clamped nodes and give them the graph's axes.

        Args:
            values: the input's values, shape `(batch, *shape)`, or a mapping from node names to values.

        Raises:
            DataError: a shape that does not fit the node, or values that are not real or complex numbers.
            GraphError: an unknown node, or one that holds no state.
        """
        given = values if isinstance(values, Mapping) else {self.input: values}
        return {name: self._placed(self.node(name), jnp.asarray(value)) for name, value in given.items()}

    def _placed(self, node: Node, value: Array) -> Array:
        if not node.state:
            raise GraphError(f"node {node.name!r} holds no state (state=False), so it cannot be clamped")
        if not jnp.issubdtype(value.dtype, jnp.inexact):
            raise DataError(
                f"values for node {node.name!r} have dtype {value.dtype}; give floating-point numbers "
                "(for images: scale them to [0, 1] first)"
            )
        full = (*self.leading, *node.shape)
        if value.shape[1:] == full:
            return value
        if value.shape[1:] == node.shape:  # an input without a time axis is shown at every step
            return jnp.broadcast_to(value[:, None], (value.shape[0], *full))
        raise DataError(
            f"values for node {node.name!r} have shape {value.shape}; expected (batch, "
            f"{', '.join(map(str, full))})"
        )


class Nodes(AbstractStructure):
    """Nodes without edges, for an energy that is a function and no graph.

    Args:
        nodes: the nodes.
        fns: the parameters, any pytree.
        input: name of the node that the data clamp.
        output: name of the node that the cost reads.
    """

    nodes: tuple[Node, ...] = eqx.field(static=True, converter=tuple)
    fns: Any
    input: str = eqx.field(static=True)
    output: str = eqx.field(static=True)

    def __check_init__(self):
        check_names(self.nodes, self.input, self.output)

    @property
    def leading(self) -> tuple[int, ...]:
        """No axes beside the batch."""
        return ()

    def output_value(self, states, constant=None):
        """The output node's state."""
        return states[self.output]


class Graph(AbstractStructure):
    """Named nodes joined by named functions; cycles are allowed, sharing is two edges with one function.

    Args:
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

    @property
    def leading(self) -> tuple[int, ...]:
        """The time axis, where the graph has a length."""
        return () if self.length is None else (self.length,)

    @cached_property
    def order(self) -> tuple[str, ...] | None:
        """Feed-forward order of the nodes within one time step; None where they form a cycle."""
        links = [(edge.source, edge.target) for edge in self.edges if edge.delay == 0]
        return topological_order_of(self.nodes, links)

    @cached_property
    def _flow_order(self) -> tuple[str, ...]:
        """Receiving nodes, such that every node without a state comes after those it reads."""
        direct = {node.name for node in self.nodes if not node.state}
        links = [(e.source, e.target) for e in self.edges if e.source in direct and e.delay == 0]
        order = topological_order_of(self.nodes, links)
        if order is None:
            raise GraphError(
                f"nodes without a state form a cycle: {known(direct)}; give one of them state=True"
            )
        receiving = {edge.target for edge in self.edges}
        return tuple(name for name in order if name in receiving)

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
        for name in self._flow_order:
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
        value = (
            states[self.output]
            if self.node(self.output).state
            else self.arrivals(states, constant)[1][self.output]
        )
        return value if self.length is None else value[:, -1]

    def transform(self, name: str, arriving: Array) -> Array:
        """Apply the node's transform to what arrives at it."""
        transform = self.node(name).transform
        return arriving if transform is None else self._mapped(self.fns[transform])(arriving)

    def sweep(self, values: Array | Mapping[str, Array], errors: States | None = None) -> States:
        """The feed-forward pass: every state takes its prediction, plus its error where one is given.

        Args:
            values: the input, shape `(batch, *shape)`, or a mapping of clamped nodes to their values.
            errors: node name -> error e; then v = vhat + e (error coordinates). Same axes as the states.

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
            return self._pass(clamped, errors, self.constant(clamped))
        return self._scan(clamped, errors)

    def _pass(self, clamped: States, errors: States, arriving: Constant) -> States:
        """One feed-forward pass without a time axis; `arriving` holds what came from elsewhere."""
        values, sums = dict(clamped), dict(arriving.sums)
        for name in self.order or ():
            for edge in self.edges:
                if edge.target == name and edge.delay == 0 and edge.source not in arriving.sources:
                    add_to(sums, name, self._mapped(self.fns[edge.fn], 1)(values[edge.source]))
            if name not in clamped:
                values[name] = self._transform_now(name, sums[name]) + errors.get(name, 0)
        return {name: value for name, value in values.items() if self.node(name).state}

    def _transform_now(self, name: str, arriving: Array) -> Array:
        transform = self.node(name).transform
        return arriving if transform is None else self._mapped(self.fns[transform], 1)(arriving)

    def _scan(self, clamped: States, errors: States) -> States:
        """The feed-forward pass along the time axis; the carry holds the values of the last few steps."""
        depth = max((edge.delay for edge in self.edges), default=0)
        like = next(iter(clamped.values()))
        empty = {
            node.name: jnp.zeros((depth, like.shape[0], *node.shape), like.dtype)
            for node in self.nodes
            if node.state
        }

        def step(carry, now):
            t, history = carry
            shown, error = now
            sums: States = {
                name: jnp.zeros((like.shape[0], *self._arrival_shape(name)), like.dtype)
                for name in self._flow_order
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
        return [
            n.name
            for n in self.nodes
            if n.name in topology.reachable([b for a, b in links if a == n.name], links)
        ]


def add_to(sums: States, name: str, value: Array) -> None:
    """Add a contribution to a node's sum in place."""
    sums[name] = sums[name] + value if name in sums else value


def known(names) -> str:
    """A readable list of names for error messages."""
    return ", ".join(sorted(names)) or "none"


def topological_order_of(nodes: Sequence[Node], links) -> tuple[str, ...] | None:
    """`topology.topological_order` over nodes."""
    return topology.topological_order([node.name for node in nodes], links)


def out_shape(fn: Callable, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that a function of one sample returns for an input of `shape`."""
    return eqx.filter_eval_shape(fn, jnp.zeros(shape)).shape


def check_names(nodes: Sequence[Node], source: str, output: str) -> None:
    """Refuse doubled node names and ends that do not exist."""
    names = [node.name for node in nodes]
    doubled = {name for name in names if names.count(name) > 1}
    if doubled:
        raise GraphError(f"duplicate node name: {known(doubled)}; the graph has: {known(names)}")
    for role, name in (("input", source), ("output", output)):
        if name not in names:
            raise GraphError(f"the {role} {name!r} is not a node; the graph has: {known(names)}")


def check_wiring(graph: Graph) -> None:
    """Refuse edges to nowhere, functions that are not there, delays without time and dead ends."""
    names = {node.name for node in graph.nodes}
    links = [(edge.source, edge.target) for edge in graph.edges]
    for edge in graph.edges:
        for end in (edge.source, edge.target):
            if end not in names:
                raise GraphError(f"edge {edge}: unknown node {end!r}; the graph has: {known(names)}")
        if edge.fn not in graph.fns:
            raise GraphError(f"edge {edge}: unknown function {edge.fn!r}; fns has: {known(graph.fns)}")
        if edge.delay < 0 or (edge.delay > 0 and graph.length is None):
            raise GraphError(
                f"edge {edge} has delay {edge.delay}: give a delay >= 0, and the graph a length if it is > 0"
            )
        if graph.length is not None and edge.delay >= graph.length:
            raise GraphError(
                f"edge {edge} has delay {edge.delay}, which nothing crosses within length {graph.length}"
            )
    for node in graph.nodes:
        if node.transform is not None and node.transform not in graph.fns:
            raise GraphError(
                f"node {node.name!r}: unknown transform {node.transform!r}; fns has: {known(graph.fns)}"
            )
        if node.name not in topology.reachable([graph.input], links):
            raise GraphError(
                f"node {node.name!r} has no path from the input {graph.input!r}: add an edge to it; "
                f"the graph has: {known(names)}"
            )
        if graph.output not in topology.reachable([node.name], links):
            raise GraphError(
                f"node {node.name!r} has no path to the output {graph.output!r}: add an edge from it; "
                f"the graph has: {known(names)}"
            )
    if not graph.node(graph.input).state:
        raise GraphError(f"the input {graph.input!r} must hold a state: it is what the data clamp")
    assert graph._flow_order is not None


def check_shapes(graph: Graph) -> None:
    """Refuse functions that cannot take their source's shape or that return another than their target's."""
    for node in graph.nodes:
        arriving = None
        for edge in graph.edges:
            if edge.target != node.name:
                continue
            source = graph.node(edge.source)
            try:
                shape = out_shape(graph.fns[edge.fn], source.shape)
            except (TypeError, ValueError, AssertionError) as error:
                raise GraphError(
                    f"edge {edge}: {edge.fn!r} cannot be applied to node {source.name!r} of shape "
                    f"{source.shape}: {error}"
                ) from error
            if arriving is not None and shape != arriving:
                raise GraphError(
                    f"edge {edge} sends shape {shape} to node {node.name!r}, where other edges send {arriving}"
                )
            arriving = shape
        if arriving is None:
            continue
        shape = arriving if node.transform is None else out_shape(graph.fns[node.transform], arriving)
        if shape != node.shape:
            raise GraphError(
                f"node {node.name!r} has shape {node.shape}, but what arrives there has shape {shape}"
            )
