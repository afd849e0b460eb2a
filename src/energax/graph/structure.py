"""Nodes and edges, and what solvers and rules need to know of any network."""

import abc
import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from energax.exceptions import DataError, GraphError

States = dict[str, Array]
"""Node name -> its state, shape `(batch, *lengths of its axes, *node.shape)`."""

Output = Array | dict[str, Array]
"""What a cost reads, or compares with: one array, or output -> array in a graph of several outputs."""


@dataclasses.dataclass(frozen=True)
class Axis:
    """An axis along which a node repeats: the steps of time, or the layers of a stack.

    Functions are shared along it, as through time, unless they are `Stacked`, as the layers of a stack.

    Attributes:
        name: unique in the graph.
        length: number of positions.
    """

    name: str
    length: int


TIME = "time"
"""Name of the axis that a graph's `length` gives to all of its nodes."""


@dataclasses.dataclass(frozen=True)
class Node:
    """A named place in a graph.

    Attributes:
        name: unique in the graph.
        shape: shape of one sample's state at one position, without batch and axes; channels last for images.
        activation: name in `Graph.functions` of the map applied to the sum of what arrives (an activation), or None.
        state: False for a node that holds no state of its own: its value *is* its prediction (a direct
            output, a readout, a pooling stage).
        axes: what the node repeats along, outermost first, beside the graph's time.
    """

    name: str
    shape: tuple[int, ...]
    activation: str | None = None
    state: bool = True
    axes: tuple[Axis, ...] = ()


EVERY = "every"
"""In `At`: all positions of an axis."""


@dataclasses.dataclass(frozen=True, init=False)
class At:
    """A node at chosen positions of its axes: where an edge leaves or enters it, or where the cost reads it.

    `At("h", time=-1)` is the last step, `At("h", time=0)` the first, `At("h", time=EVERY)` all of them. An edge into
    every position sends each the same; what leaves every position is summed, as is all that arrives at a node; a cost
    of every position compares with a target that has the axis.

    Attributes:
        node: name of the node.
        positions: name of an axis -> a position, from the end where negative, or EVERY.
    """

    node: str
    positions: tuple[tuple[str, int | str], ...]

    def __init__(self, node: str, **positions: int | str):
        object.__setattr__(self, "node", node)
        object.__setattr__(self, "positions", tuple(sorted(positions.items())))


@dataclasses.dataclass(frozen=True)
class Edge:
    """A map from one node's state to a part of what arrives at another.

    Along an axis of both ends, delay d maps `source[:, :length-d]` to what arrives at `target[:, d:]`. Along an axis
    of one end alone, an edge leaves from the last position and enters at the first, unless the end is given as an
    `At`. So an input without the axis of time, shown at every step, is `Edge("x", At("h", time=EVERY), "f")`: its
    map is computed once, and not at every step.

    Attributes:
        source: name of the node that is read, or an `At`.
        target: name of the node that receives, or an `At`.
        function: name in `Graph.functions`; two edges that name one function share its parameters.
        delay: positions from source to target along the axis that both ends have; where they have several, one
            number for each, outermost first.
        leaves: what was given of the source, as `At.positions`; `source` is its name.
        enters: what was given of the target.
    """

    source: str
    target: str
    function: str
    delay: int | tuple[int, ...] = 0
    leaves: tuple[tuple[str, int | str], ...] = dataclasses.field(default=(), kw_only=True)
    enters: tuple[tuple[str, int | str], ...] = dataclasses.field(default=(), kw_only=True)

    def __post_init__(self):
        for end, places in (("source", "leaves"), ("target", "enters")):
            given = getattr(self, end)
            if isinstance(given, At):
                object.__setattr__(self, end, given.node)
                object.__setattr__(self, places, given.positions)

    def __str__(self):
        return f"{self.source} -> {self.target} ({self.function})"


class Clamped(eqx.Module):
    """Nodes that are held where they are, batch first.

    Attributes:
        values: node name -> its value.
        sums: node name -> the sum of what the clamped nodes send there, computed once per phase and not once per step
            by `Graph.precompute`; None where that was not done.
        keys: one PRNG key per sample for random layers, shape `(batch,)`; None where these are off.
    """

    values: States
    sums: States | None = None
    keys: Array | None = None


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
        placed = {name: self._placed(self.node(name), jnp.asarray(value)) for name, value in given.items()}
        sizes = {name: value.shape[0] for name, value in placed.items()}
        if len(set(sizes.values())) > 1:
            raise DataError(f"clamped nodes have batches of different sizes: {sizes}")
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
    def nodes(self) -> Any: ...  # noqa: D102 - a tuple of `Node`; type checkers do not see through converters
    @property
    def edges(self) -> Any: ...  # noqa: D102 - a tuple of `Edge`
    @property
    def functions(self) -> Any: ...  # noqa: D102
    @property
    def inputs(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def outputs(self) -> tuple[At, ...]: ...  # noqa: D102

    def axes(self, name: str) -> tuple[Axis, ...]: ...  # noqa: D102
    def output_value(self, states: States, clamped: Clamped | None = None) -> Output: ...  # noqa: D102
    def node(self, name: str) -> Node: ...  # noqa: D102
    def free(self, clamped: Collection[str]) -> tuple[str, ...]: ...  # noqa: D102
    def zeros(self, names: Collection[str], like: Array) -> States: ...  # noqa: D102
    def full_shape(self, name: str) -> tuple[int, ...]: ...  # noqa: D102
    def clamp(self, values: Array | Mapping[str, Array]) -> States: ...  # noqa: D102
    def untouched(self, ends: Collection[str]) -> tuple[str, ...]: ...  # noqa: D102
    def order(self, clamped: Collection[str] = ()) -> tuple[str, ...] | None: ...  # noqa: D102
    def colouring(self, names: Collection[str]) -> tuple[tuple[str, ...], ...]: ...  # noqa: D102
    def precompute(self, clamped: Clamped) -> Clamped: ...  # noqa: D102
    def arrivals(self, states: States, clamped: Clamped | None = None) -> tuple[States, States]: ...  # noqa: D102
    def predict(self, states: States, clamped: Clamped | None = None) -> States: ...  # noqa: D102
    def sweep(self, values: Array | Mapping[str, Array] | Clamped, errors: States | None = None) -> States: ...  # noqa: D102


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


def promote(graph: AnyGraph, values: States) -> States:
    """Clamped values in the widest floating-point dtype of the parameters and of the values."""
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(eqx.filter(graph, eqx.is_inexact_array))}
    if not values:
        return {}
    wide = functools.reduce(jnp.promote_types, [*dtypes, *(value.dtype for value in values.values())])
    return {name: value.astype(wide) for name, value in values.items()}


def hold(graph: AnyGraph, values: Array | Mapping[str, Array], key: PRNGKeyArray | None = None) -> Clamped:
    """Clamped nodes as a phase holds them: checked, in one dtype, with a key for every sample.

    Args:
        graph: the network.
        values: as `graph.clamp` takes them.
        key: for random layers; every sample draws from this key and its row alone. None switches chance off.
    """
    clamped = promote(graph, graph.clamp(values))
    if key is None or not clamped:
        return Clamped(clamped)
    rows = jnp.arange(next(iter(clamped.values())).shape[0])
    return Clamped(clamped, keys=jax.vmap(lambda row: jax.random.fold_in(key, row))(rows))


def axes_of(node: Node, length: int | None) -> tuple[Axis, ...]:
    """The axes of a node in a graph of `length` time steps, outermost first."""
    return node.axes if length is None else (Axis(TIME, length), *node.axes)


def shifts_of(edge: Edge, source: Sequence[Axis], target: Sequence[Axis]) -> dict[Axis, int]:
    """The delay of an edge along every axis that both its ends have.

    Raises:
        GraphError: a delay along no axis, or another number of delays than of axes.
    """
    both = [axis for axis in source if axis in target]
    for name, _ in (*edge.leaves, *edge.enters):
        if name in [axis.name for axis in both]:
            raise GraphError(f"edge {edge} names a position of {name!r}, which both ends have: give a delay instead")
    if edge.delay == 0:
        return dict.fromkeys(both, 0)
    delays = edge.delay if isinstance(edge.delay, tuple) else (edge.delay,)
    if not both:
        raise GraphError(
            f"edge {edge} has delay {edge.delay}: give a delay >= 0, and the graph a length if it is > 0 "
            "(or both ends an axis)"
        )
    if len(delays) != len(both):
        raise GraphError(
            f"edge {edge} has delay {edge.delay}, and its ends share the axes "
            f"{', '.join(axis.name for axis in both)}: give a tuple with one delay for each"
        )
    return dict(zip(both, delays, strict=True))


def add_to(sums: States, name: str, value: Array) -> None:
    """Add a contribution to a node's sum in place."""
    sums[name] = sums[name] + value if name in sums else value


def list_names(names) -> str:
    """A readable list of names for error messages."""
    return ", ".join(sorted(names)) or "none"


def place_positions(
    what: str, axes: Sequence[Axis], positions: Sequence[tuple[str, int | str]], default: int
) -> tuple[int | slice, ...]:
    """An index for every axis: a position counted from the first, or a slice over every one.

    Args:
        what: the edge or the output, for messages.
        axes: the axes, outermost first.
        positions: as in `At`.
        default: the position along axes that are not named.

    Raises:
        GraphError: an axis that is not there, or a position outside of it.
    """
    named = dict(positions)
    unknown = set(named) - {axis.name for axis in axes}
    if unknown:
        raise GraphError(
            f"{what}: no axis {list_names(unknown)} there; the axes are: {list_names(axis.name for axis in axes)}"
        )
    found: list[int | slice] = []
    for axis in axes:
        position = named.get(axis.name, default)
        if position == EVERY:
            found.append(slice(None))
        elif isinstance(position, int) and -axis.length <= position < axis.length:
            found.append(position % axis.length)
        else:
            raise GraphError(
                f"{what}: position {position!r} of the axis {axis.name!r}, which has {axis.length}: give a number from "
                f"{-axis.length} to {axis.length - 1}, or EVERY"
            )
    return tuple(found)


def read_outputs(graph: AbstractStructure, values: States) -> Output:
    """What the cost reads of the values of all nodes."""
    found = {}
    for place in graph.outputs:
        index = place_positions(f"output {place.node!r}", graph.axes(place.node), place.positions, -1)
        found[place.node] = values[place.node][(slice(None), *index)]
    return found if isinstance(graph.output, tuple) else found[graph.outputs[0].node]


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


def out_shape(fn: Callable, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that a function of one sample returns for an input of `shape`."""
    return eqx.filter_eval_shape(fn, jnp.zeros(shape)).shape
