"""Nodes and edges, and what solvers and rules need to know of any network."""

import abc
import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

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
        return {name: jnp.zeros((like.shape[0], *self.leading, *self.node(name).shape), like.dtype) for name in names}

    def clamp(self, values: Array | Mapping[str, Array]) -> States:
        """Check the values of clamped nodes and give them the graph's axes.

        Args:
            values: the input's values, shape `(batch, *shape)`, or a mapping from node names to values.

        Raises:
            DataError: a shape that does not fit the node, batches of different sizes, or values that are not
                real or complex numbers.
            GraphError: an unknown node, or one that holds no state.
        """
        given = values if isinstance(values, Mapping) else {self.input: values}
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
        full = (*self.leading, *node.shape)
        if value.shape[1:] == full:
            return value
        if value.shape[1:] == node.shape:  # an input without a time axis is shown at every step
            return jnp.broadcast_to(value[:, None], (value.shape[0], *full))
        raise DataError(
            f"values for node {node.name!r} have shape {value.shape}; expected (batch, {', '.join(map(str, full))})"
        )


AnyGraph = Any
"""A `Graph`; or `Nodes`, for the dynamics that read no edges. (The type checker cannot tell which.)"""


class Nodes(AbstractStructure):
    """Nodes without edges, for an energy that is a function and no graph.

    Attributes:
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

    def sweep(self, values, errors=None):
        """There is none: `GraphError` says so."""
        raise GraphError("no edges, so no feed-forward pass: use Adjoint as the reference, or a Graph")


def known(names) -> str:
    """A readable list of names for error messages."""
    return ", ".join(sorted(names)) or "none"


def check_names(nodes: Sequence[Node], source: str, output: str) -> None:
    """Refuse doubled node names and ends that do not exist."""
    names = [node.name for node in nodes]
    doubled = {name for name in names if names.count(name) > 1}
    if doubled:
        raise GraphError(f"duplicate node name: {known(doubled)}; the graph has: {known(names)}")
    for role, name in (("input", source), ("output", output)):
        if name not in names:
            raise GraphError(f"the {role} {name!r} is not a node; the graph has: {known(names)}")


def out_shape(fn: Callable, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that a function of one sample returns for an input of `shape`."""
    return eqx.filter_eval_shape(fn, jnp.zeros(shape)).shape
