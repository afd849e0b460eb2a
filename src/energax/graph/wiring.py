"""What a graph must be: every check names the node or edge at fault and lists the known names."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax

from energax.exceptions import GraphError
from energax.graph.parts import Axis, Edge, list_names, place_positions, sample_of
from energax.graph.stacking import check_stacked, map_samples

if TYPE_CHECKING:
    from energax.graph.graph import Graph


def check_wiring(graph: "Graph") -> None:
    """Refuse edges to nowhere, functions that are not there, delays without time and dead ends."""
    check_axes(graph)
    for name in graph.inputs:
        if not graph.node(name).state:
            raise GraphError(f"the input {name!r} must hold a state: it is what the data clamp")
    names = {node.name for node in graph.nodes}
    for edge in graph.edges:
        for end in (edge.source, edge.target):
            if end not in names:
                raise GraphError(f"edge {edge}: unknown node {end!r}; the graph has: {list_names(names)}")
        if edge.function not in graph.functions:
            raise GraphError(
                f"edge {edge}: unknown function {edge.function!r}; the graph has: {list_names(graph.functions)}"
            )
        check_delays(edge, graph)
    for node in graph.nodes:
        if node.activation is not None and node.activation not in graph.functions:
            raise GraphError(
                f"node {node.name!r}: unknown activation {node.activation!r}; "
                f"the graph has: {list_names(graph.functions)}"
            )
        if not node.state and node.name not in {edge.target for edge in graph.edges}:
            raise GraphError(f"node {node.name!r} holds no state and nothing arrives at it: add an edge to it")
    ends = [*graph.inputs, *(place.node for place in graph.outputs)]
    for name in graph.untouched(ends):
        raise GraphError(
            f"node {name!r} is joined to no input and no output ({list_names(set(ends))}): nothing would move it; add "
            f"an edge; the graph has: {list_names(names)}"
        )


def check_delays(edge: Edge, graph: "Graph") -> None:
    """Refuse delays below 0, and those that nothing crosses."""
    for axis, delay in graph.shifts(edge).items():
        if delay < 0:
            raise GraphError(f"edge {edge} has delay {delay}: give a delay >= 0")
        if delay >= axis.length:
            raise GraphError(
                f"edge {edge} has delay {delay}, which nothing crosses within length {axis.length} of {axis.name!r}"
            )


def check_axes(graph: "Graph") -> None:
    """Refuse axes without positions, of two lengths, or within different others."""
    seen: dict[str, tuple[Axis, ...]] = {}
    for node in graph.nodes:
        axes = graph.axes(node.name)
        for index, axis in enumerate(axes):
            if axis.length < 1:
                raise GraphError(f"node {node.name!r}: axis {axis.name!r} has length {axis.length}; give at least 1")
            nest = axes[: index + 1]
            if seen.setdefault(axis.name, nest) != nest:
                raise GraphError(
                    f"node {node.name!r}: axis {axis.name!r} is {nest}, and elsewhere {seen[axis.name]}; an axis has "
                    "one length and stands behind the same others at every node"
                )


def check_stateless(graph: "Graph") -> None:
    """Refuse layers that carry a state from batch to batch: norms with batch statistics, most of all."""
    for name, fn in graph.functions.items():
        for part in jax.tree.leaves(fn, is_leaf=carries_state):
            if carries_state(part):
                raise GraphError(
                    f"function {name!r}: {type(part).__name__} takes statistics over a batch, and here every sample "
                    "settles on its own; use eqx.nn.LayerNorm, GroupNorm or RMSNorm, which take them over one sample"
                )


def carries_state(part: Any) -> bool:
    """Whether a layer itself carries a state; a sequence does so through its layers alone, which are looked at."""
    return isinstance(part, eqx.nn.StatefulLayer) and not isinstance(part, eqx.nn.Sequential) and part.is_stateful()


def check_shapes(graph: "Graph") -> None:
    """Refuse functions that cannot take their source's shape or that return another than their target's."""
    for node in graph.nodes:
        arriving = None
        for edge in graph.edges:
            if edge.target != node.name:
                continue
            source = graph.node(edge.source)
            shifts = graph.shifts(edge)
            rest = [axis for axis in graph.axes(edge.source) if axis not in shifts]
            leaving = place_positions(f"edge {edge}, source", rest, edge.leaves, -1)
            entered = [axis for axis in graph.axes(edge.target) if axis not in shifts]
            place_positions(f"edge {edge}, target", entered, edge.enters, 0)
            every = [axis for axis, position in zip(rest, leaving, strict=True) if isinstance(position, slice)]
            mapped = (*shifts, *every)
            reached = [axis.length - shifts.get(axis, 0) for axis in mapped]
            check_stacked(f"edge {edge}", graph.functions[edge.function], mapped, reached)
            place = (f"edge {edge}: {edge.function!r}", f"node {source.name!r} of shape {source.shape}")
            shape = sent_shape(place, graph.functions[edge.function], mapped, reached, source.shape)
            if arriving is not None and shape != arriving:
                raise GraphError(
                    f"edge {edge} sends shape {shape} to node {node.name!r}, where other edges send {arriving}"
                )
            arriving = shape
        if arriving is None:
            continue
        shape = arriving
        if node.activation is not None:
            axes = graph.axes(node.name)
            reached = [axis.length for axis in axes]
            check_stacked(f"activation of node {node.name!r}", graph.functions[node.activation], axes, reached)
            place = (f"activation of node {node.name!r}: {node.activation!r}", f"what arrives, of shape {arriving}")
            shape = sent_shape(place, graph.functions[node.activation], axes, reached, arriving)
        if shape != node.shape:
            edges = ", ".join(str(edge) for edge in graph.edges if edge.target == node.name)
            raise GraphError(
                f"node {node.name!r} has shape {node.shape}, but what arrives there has shape {shape}, from: {edges}"
            )


def sent_shape(
    place: tuple[str, str], function: Callable, axes: Sequence[Axis], reached: Sequence[int], shape: tuple[int, ...]
) -> tuple[int, ...]:
    """The shape that a function returns at one position for an input of `shape`.

    Args:
        place: what is applied, and to what, for the message.
        function: of one sample at one position.
        axes: what it is applied along.
        reached: number of positions along each of them.
        shape: of its input at one position.

    Raises:
        GraphError: the function fails, or returns anything but one array of real or complex numbers.
    """
    where, what = place
    try:
        sent = eqx.filter_eval_shape(lambda x: map_samples(function, axes, x), sample_of((1, *reached, *shape)))
    except Exception as error:  # whatever a function of the user's raises, the place is what helps
        raise GraphError(f"{where} cannot be applied to {what}: {type(error).__name__}: {error}") from error
    if not isinstance(sent, jax.ShapeDtypeStruct):
        raise GraphError(f"{where} applied to {what} returns {sent!r}; it must return one array")
    return sent.shape[1 + len(axes) :]
