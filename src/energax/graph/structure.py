"""What dynamics, rules and solvers need to know of any network."""

import abc
from collections.abc import Collection, Mapping
from typing import Any, Protocol

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from energax.checking import as_array
from energax.exceptions import DataError, GraphError
from energax.graph.parts import At, Axis, Clamped, Edge, Node, Output, States, list_names, place_positions


class AbstractStructure(eqx.Module):
    """What solvers and rules need to know of a network: its nodes, its inputs and its outputs."""

    nodes: eqx.AbstractVar[tuple[Node, ...]]
    edges: eqx.AbstractVar[tuple[Edge, ...]]
    functions: eqx.AbstractVar[Any]
    input: eqx.AbstractVar[str | tuple[str, ...]]
    output: eqx.AbstractVar[str | At | tuple[str | At, ...]]

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the nodes that the data clamp."""
        return (self.input,) if isinstance(self.input, str) else tuple(self.input)

    @property
    def outputs(self) -> tuple[At, ...]:
        """The nodes that the cost reads, and where: at the last position of their axes, unless said."""
        given = self.output if isinstance(self.output, tuple) else (self.output,)
        return tuple(one if isinstance(one, At) else At(one) for one in given)

    @abc.abstractmethod
    def axes(self, name: str) -> tuple[Axis, ...]:
        """Axes between the batch and a node's own shape, outermost first."""

    @abc.abstractmethod
    def output_value(self, states: States, clamped: Clamped | None = None) -> Output:
        """What the cost reads, shape `(batch, *shape)`; where there are several outputs, output -> value."""

    def node(self, name: str) -> Node:
        """The node of this name; `GraphError` lists the known ones otherwise."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise GraphError(f"unknown node {name!r}; the graph has: {list_names(node.name for node in self.nodes)}")

    def untouched(self, ends: Collection[str]) -> tuple[str, ...]:
        """Nodes that no edge joins, in either direction, to any of the given ones. None where there are no edges."""
        return ()

    def order(self, clamped: Collection[str] = ()) -> tuple[str, ...] | None:
        """A feed-forward order of the nodes; None where there is none."""
        return None

    def colouring(self, names: Collection[str]) -> tuple[tuple[str, ...], ...]:
        """Blocks of nodes of which no two interact: each on its own, where no edges tell."""
        return tuple((name,) for name in names)

    def precompute(self, clamped: Clamped) -> Clamped:
        """The clamped nodes with what they send to others."""
        return clamped

    @property
    def routed(self) -> tuple[int, ...]:
        """Numbers of the edges whose layers hold routes."""
        return ()

    def hold_routes(self, states: States, clamped: Clamped) -> Clamped:
        """The clamped nodes with the routes that layers take at these states. None where there are no edges."""
        return clamped

    def arrivals(self, states: States, clamped: Clamped | None = None) -> tuple[States, States]:
        """What arrives at every receiving node, and the values of all nodes."""
        return {}, dict(states)

    def predict(self, states: States, clamped: Clamped | None = None) -> States:
        """The prediction of every receiving node."""
        return {}

    def sweep(self, values: Array | Mapping[str, Array] | Clamped, errors: States | None = None) -> States:
        """There is no feed-forward pass without edges: `GraphError` says so."""
        raise GraphError("no edges, so no feed-forward pass: use Adjoint as the reference, or a Graph")

    def free(self, clamped: Collection[str]) -> tuple[str, ...]:
        """Names of the nodes that hold a state and are not clamped."""
        return tuple(node.name for node in self.nodes if node.state and node.name not in clamped)

    def zeros(self, names: Collection[str], like: Array) -> States:
        """Zero states for `names`, with the batch size and the dtype of `like`."""
        return {name: jnp.zeros((like.shape[0], *self.full_shape(name)), like.dtype) for name in names}

    def full_shape(self, name: str) -> tuple[int, ...]:
        """Shape of one sample's state of a node, at all positions."""
        return (*(axis.length for axis in self.axes(name)), *self.node(name).shape)

    def clamp(self, values: Array | Mapping[str, Array]) -> States:
        """Check the values of clamped nodes and give them their axes.

        Args:
            values: the input's values, shape `(batch, *shape)`, or a mapping from node names to values.

        Raises:
            DataError: one array for several inputs, a shape that does not fit the node, batches of different sizes,
                or values that are not real or complex numbers.
            GraphError: an unknown node, or one that holds no state.
        """
        if not isinstance(values, Mapping) and len(self.inputs) > 1:
            raise DataError(f"one array for the inputs {list_names(self.inputs)}: give a mapping from names to arrays")
        given = values if isinstance(values, Mapping) else dict.fromkeys(self.inputs, values)
        placed = {
            name: self._placed(self.node(name), as_array(f"node {name!r}", value)) for name, value in given.items()
        }
        sizes = {name: value.shape[0] for name, value in placed.items()}
        if len(set(sizes.values())) > 1:
            raise DataError(f"clamped nodes have batches of different sizes: {sizes}")
        if 0 in sizes.values():
            raise DataError(f"values for {list_names(sizes)} hold no samples: give at least one")
        return placed

    def _placed(self, node: Node, value: Array) -> Array:
        if not node.state:
            raise GraphError(f"node {node.name!r} holds no state (state=False), so it cannot be clamped")
        if not jnp.issubdtype(value.dtype, jnp.inexact):
            raise DataError(
                f"values for node {node.name!r} have dtype {value.dtype}; give floating-point numbers "
                "(for images: scale them to [0, 1] first)"
            )
        full = self.full_shape(node.name)
        if value.shape[1:] == full:
            return value
        if value.shape[1:] == node.shape:  # a value without axes is shown at every position
            added = tuple(range(1, 1 + len(full) - len(node.shape)))
            return jnp.broadcast_to(jnp.expand_dims(value, added), (value.shape[0], *full))
        raise DataError(
            f"values for node {node.name!r} have shape {value.shape}; expected (batch, {', '.join(map(str, full))})"
        )


class AnyGraph(Protocol):
    """What dynamics, rules and solvers read of a network: a `Graph`, `Nodes`, or a structure of your own.

    Each is documented at `Graph`. A structure of one's own is a pytree whose inexact arrays are the parameters; it gets
    all but the first five from `AbstractStructure`, and may leave out what its dynamics does not ask for.
    """

    @property
    def nodes(self) -> Any:
        """The nodes: a tuple of `Node`, which type checkers do not see through a field's converter."""
        ...

    @property
    def edges(self) -> Any:
        """The edges: a tuple of `Edge`; none where the network has none."""
        ...

    @property
    def functions(self) -> Any:
        """What holds the parameters: a mapping from names, or any pytree."""
        ...

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the nodes that the data clamp."""
        ...

    @property
    def outputs(self) -> tuple[At, ...]:
        """The nodes that the cost reads, and where."""
        ...

    def axes(self, name: str) -> tuple[Axis, ...]:
        """Axes between the batch and a node's own shape."""
        ...

    def output_value(self, states: States, clamped: Clamped | None = None) -> Output:
        """What the cost reads."""
        ...

    def node(self, name: str) -> Node:
        """The node of this name."""
        ...

    def free(self, clamped: Collection[str]) -> tuple[str, ...]:
        """Names of the nodes that hold a state and are not clamped."""
        ...

    def zeros(self, names: Collection[str], like: Array) -> States:
        """Zero states, with the batch size and the dtype of `like`."""
        ...

    def full_shape(self, name: str) -> tuple[int, ...]:
        """Shape of one sample's state of a node."""
        ...

    def clamp(self, values: Array | Mapping[str, Array]) -> States:
        """Check the values of clamped nodes and give them their axes."""
        ...

    def untouched(self, ends: Collection[str]) -> tuple[str, ...]:
        """Nodes that nothing joins to any of the given ones."""
        ...

    def order(self, clamped: Collection[str] = ()) -> tuple[str, ...] | None:
        """A feed-forward order where some nodes are held; None where there is none."""
        ...

    def colouring(self, names: Collection[str]) -> tuple[tuple[str, ...], ...]:
        """Blocks of nodes of which no two interact."""
        ...

    def precompute(self, clamped: Clamped) -> Clamped:
        """The clamped nodes with what they send."""
        ...

    @property
    def routed(self) -> tuple[int, ...]:
        """Numbers of the edges whose layers hold routes."""
        ...

    def hold_routes(self, states: States, clamped: Clamped) -> Clamped:
        """The clamped nodes with the routes that layers take at these states."""
        ...

    def arrivals(self, states: States, clamped: Clamped | None = None) -> tuple[States, States]:
        """What arrives at every receiving node, and the values of all nodes."""
        ...

    def predict(self, states: States, clamped: Clamped | None = None) -> States:
        """The prediction of every receiving node."""
        ...

    def sweep(self, values: Array | Mapping[str, Array] | Clamped, errors: States | None = None) -> States:
        """The feed-forward pass; `GraphError` where there is none."""
        ...


def freeze(names):
    """A list of names as a tuple; one name as it is."""
    return tuple(names) if isinstance(names, list) else names


class Nodes(AbstractStructure):
    """Nodes without edges, for an energy that is a function and no graph.

    Attributes:
        nodes: the nodes.
        functions: the parameters, any pytree.
        input: name of the node that the data clamp, or several.
        output: name of the node that the cost reads, or several; each may be an `At`.
    """

    nodes: tuple[Node, ...] = eqx.field(static=True, converter=tuple)
    functions: Any
    input: str | tuple[str, ...] = eqx.field(static=True, converter=freeze)
    output: str | At | tuple[str | At, ...] = eqx.field(static=True, converter=freeze)
    edges: tuple[Edge, ...] = eqx.field(static=True, init=False, default=())

    def __check_init__(self):
        check_names(self)

    def axes(self, name):
        """The node's own."""
        return self.node(name).axes

    def output_value(self, states, clamped=None):
        """The output nodes' states."""
        return read_outputs(self, states)


def read_outputs(graph: AbstractStructure, values: States) -> Output:
    """What the cost reads of the values of all nodes."""
    found = {}
    for place in graph.outputs:
        index = place_positions(f"output {place.node!r}", graph.axes(place.node), place.positions, -1)
        found[place.node] = values[place.node][(slice(None), *index)]
    return found if isinstance(graph.output, tuple) else found[graph.outputs[0].node]


def shape_outputs(graph: AnyGraph) -> Any:
    """Shape of what the cost reads of one sample; output -> shape in a graph of several outputs."""
    found = {}
    for place in graph.outputs:
        axes = graph.axes(place.node)
        index = place_positions(f"output {place.node!r}", axes, place.positions, -1)
        every = [axis.length for axis, position in zip(axes, index, strict=True) if isinstance(position, slice)]
        found[place.node] = (*every, *graph.node(place.node).shape)
    several = isinstance(getattr(graph, "output", None), tuple)
    return found if several else found[graph.outputs[0].node]


def check_names(graph: AbstractStructure) -> None:
    """Refuse doubled node names, and ends and positions that do not exist."""
    names = [node.name for node in graph.nodes]
    doubled = {name for name in names if names.count(name) > 1}
    if doubled:
        raise GraphError(f"duplicate node name: {list_names(doubled)}; the graph has: {list_names(names)}")
    ends = [("input", name) for name in graph.inputs] + [("output", place.node) for place in graph.outputs]
    for role, name in ends:
        if name not in names:
            raise GraphError(f"the {role} {name!r} is not a node; the graph has: {list_names(names)}")
        if ends.count((role, name)) > 1:
            raise GraphError(f"the {role} {name!r} is named twice")
    if not graph.inputs or not graph.outputs:
        raise GraphError("a graph needs an input and an output: give the names of nodes")
    for place in graph.outputs:
        place_positions(f"output {place.node!r}", graph.axes(place.node), place.positions, -1)
