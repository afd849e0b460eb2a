"""A stack as separate nodes, edges and functions: slower to compile, and the same network."""

from collections.abc import Callable

import equinox as eqx

from energax.exceptions import GraphError
from energax.graph.graph import Graph
from energax.graph.parts import At, Axis, Edge, Node, place_positions
from energax.graph.stacking import Stacked


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
    for name in graph.inputs:
        if axis in graph.axes(name):
            raise GraphError(f"the input {name!r} has the axis {axis.name!r}, so it cannot become separate nodes")
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
            fn = _place(graph, functions, edge.function, axis, source, source if target is None else target)
            leaves, enters = (tuple(one for one in ends if one[0] != axis.name) for ends in (edge.leaves, edge.enters))
            names = (_name(edge.source, source), _name(edge.target, target))
            edges.append(Edge(*names, str(fn), delay or 0, leaves=leaves, enters=enters))
    placed = [one for place in graph.outputs for one in _outputs(graph, place, axis)]
    outputs = [one if one.positions else one.node for one in placed]
    output = outputs if len(outputs) > 1 or isinstance(graph.output, tuple) else outputs[0]
    return Graph(nodes=nodes, edges=edges, functions=functions, input=graph.input, output=output, length=graph.length)


def _outputs(graph: Graph, place: At, axis: Axis) -> list[At]:
    """An output as one or, where it is read at every position of the axis, several."""
    rest = {name: position for name, position in place.positions if name != axis.name}
    axes = graph.axes(place.node)
    if axis not in axes:
        return [At(place.node, **rest)]
    index = place_positions(f"output {place.node!r}", axes, place.positions, -1)[axes.index(axis)]
    chosen = range(axis.length) if isinstance(index, slice) else [index]
    return [At(_name(place.node, i), **rest) for i in chosen]


def _ends(graph: Graph, edge: Edge, axis: Axis) -> list[tuple[int | None, int | None]]:
    """Positions of source and target of every copy of an edge; None for an end outside the axis."""
    shift = graph.shifts(edge).get(axis)
    if shift is not None:
        return [(i, i + shift) for i in range(axis.length - shift)]
    sources = _chosen(edge, axis, graph.axes(edge.source), edge.leaves, -1)
    return [(i, j) for i in sources for j in _chosen(edge, axis, graph.axes(edge.target), edge.enters, 0)]


def _chosen(edge: Edge, axis: Axis, axes, positions, default: int) -> list[int | None]:
    """Positions of an axis at one end of an edge; None alone where the end does not have it."""
    if axis not in axes:
        return [None]
    named = [one for one in positions if one[0] == axis.name]
    index = place_positions(f"edge {edge}", [axis], named, default)[0]
    return list(range(axis.length)) if isinstance(index, slice) else [index]


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
