"""The parts that a network is made of: nodes, axes, edges, and where an edge leaves and enters."""

import dataclasses
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

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


class Known(eqx.Module):
    """Units of a node that are held where they are, of every sample its own; the node's other units are free.

    Attributes:
        mask: True at the units that are held, shape `(batch, *lengths of its axes, *node.shape)`.
        value: where they are held; 0 at the others. Same shape.
    """

    mask: Array
    value: Array


class Clamped(eqx.Module):
    """Nodes that are held where they are, batch first.

    Attributes:
        values: node name -> its value.
        sums: node name -> the sum of what the clamped nodes send there, computed once per phase and not once per step
            by `Graph.precompute`; None where that was not done.
        keys: one PRNG key per sample for random layers, shape `(batch,)`; None where these are off.
        routes: number of an edge -> the routes that its layers hold, from `Graph.hold_routes`.
        known: name of a free node -> its units that are held; no node of `values`.
        rows: where nothing is held, an array of the batch's size and the states' dtype, shape `(batch,)`.
    """

    values: States
    sums: States | None = None
    keys: Array | None = None
    routes: dict[int, PyTree] = eqx.field(default_factory=dict)
    known: dict[str, Known] = eqx.field(default_factory=dict)
    rows: Array | None = None

    @property
    def example(self) -> Array:
        """An array of the batch's size and the states' dtype."""
        for value in (*self.values.values(), *(known.value for known in self.known.values()), self.rows):
            if value is not None:
                return value
        raise DataError("nothing is clamped, so that the batch has no size: give the value of a node")

    @property
    def held(self) -> frozenset[str]:
        """Names of the nodes of which anything is held."""
        return frozenset(self.values) | frozenset(self.known)


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


def out_shape(fn: Callable, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that a function of one sample returns for an input of `shape`."""
    return eqx.filter_eval_shape(fn, sample_of(shape)).shape


def sample_of(shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    """What stands for a value where only shapes are asked for: nothing is allocated or compiled."""
    return jax.ShapeDtypeStruct(shape, jnp.result_type(float))
