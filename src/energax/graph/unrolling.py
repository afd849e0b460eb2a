"""A stack as separate nodes, edges and functions: slower to compile, and the same network."""

from collections.abc import Callable

import equinox as eqx

from energax.exceptions import GraphError
from energax.graph.graph import Graph
from energax.graph.stacking import Stacked
from energax.graph.structure import Axis, Edge, Node


def unroll(graph: Graph, axis: Axis) -> Graph:
    """The graph with node `n` as `n0`, `n1`, ... along an axis, and its stacked functions one by one.

    A function that reaches position i is named with i; shared functions keep their names. Use it to look at single
    layers, or to check a stack against its parts.

    Args:
        graph: a graph whose input lies outside the axis.
        axis: one of its axes.

    Raises:
        GraphError: the input has the axis.
    """
    if axis in graph.axes(graph.input):
        raise GraphError(f"the input {graph.input!r} has the axis {axis.name!r}, so it cannot become separate nodes")
    nodes: list[Node] = []
    edges: list[Edge] = []
    functions: dict[str, Callable] = {}
    for node in graph.nodes:
        for i in range(axis.length) if axis in node.axes else (None,):
            activation = _place(graph, functions, node.activation, axis, i, i)
            rest = tuple(other for other in node.axes if other != axis)
            nodes.append(Node(_name(node.name, i), node.shape, activation, node.state, rest))
    for edge in graph.edges:
        shifts = graph.shifts(edge)
        delay = tuple(d for other, d in shifts.items() if other != axis)
        for source, target in _ends(graph, edge, axis):
            fn = _place(graph, functions, edge.function, axis, source, target)
            edges.append(Edge(_name(edge.source, source), _name(edge.target, target), str(fn), delay or 0))
    output = _name(graph.output, axis.length - 1 if axis in graph.axes(graph.output) else None)
    return Graph(nodes=nodes, edges=edges, functions=functions, input=graph.input, output=output, length=graph.length)


def _ends(graph: Graph, edge: Edge, axis: Axis) -> list[tuple[int | None, int | None]]:
    """Positions of source and target of every copy of an edge; None for an end outside the axis."""
    shift = graph.shifts(edge).get(axis)
    if shift is not None:
        return [(i, i + shift) for i in range(axis.length - shift)]
    source = axis.length - 1 if axis in graph.axes(edge.source) else None
    return [(source, 0 if axis in graph.axes(edge.target) else None)]


def _place(graph: Graph, functions: dict, name: str | None, axis: Axis, index: int | None, position: int | None):
    """The name of a function at a position, after putting it there."""
    if name is None:
        return None
    fn = graph.functions[name]
    if index is None or take_position(fn, axis, index) is fn:
        functions[name] = fn
        return name
    functions[_name(name, position)] = take_position(fn, axis, index)
    return _name(name, position)


def take_position(fn: Callable, axis: Axis, index: int) -> Callable:
    """The function at one position of an axis; the function itself where it is shared along it."""
    if not isinstance(fn, Stacked):
        return fn
    if fn.axis == axis:
        return fn.at(index)
    if not isinstance(fn.function, Stacked):
        return fn
    return Stacked(eqx.filter_vmap(lambda one: take_position(one, axis, index))(fn.function), fn.axis)


def _name(name: str, position: int | None) -> str:
    return name if position is None else f"{name}{position}"
