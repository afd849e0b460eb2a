"""What a graph must be: every check names the node or edge at fault and lists the known names."""

from energax import topology
from energax.errors import GraphError
from energax.structure import AnyGraph, known, out_shape


def check_wiring(graph: AnyGraph) -> None:
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
            raise GraphError(f"edge {edge} has delay {edge.delay}, which nothing crosses within length {graph.length}")
    for node in graph.nodes:
        if node.transform is not None and node.transform not in graph.fns:
            raise GraphError(f"node {node.name!r}: unknown transform {node.transform!r}; fns has: {known(graph.fns)}")
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


def check_shapes(graph: AnyGraph) -> None:
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
            raise GraphError(f"node {node.name!r} has shape {node.shape}, but what arrives there has shape {shape}")
