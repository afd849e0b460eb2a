"""Pictures of networks."""

from typing import TYPE_CHECKING

from energax.checking import require_kind, require_whole
from energax.graph.structure import AbstractStructure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def graph(graph: AbstractStructure, *, columns: int = 8) -> "Figure":
    """A network as a picture: what it is made of, and where its errors stand.

    Nodes stand layer by layer, edges lead from left to right; one that closes a cycle leads back below. A circle e
    before a node is a prediction error of predictive coding, at every node that holds a state and receives an edge.
    Below a node stand its shape, its axes, and where along them the cost reads. On an edge stands its function, and
    below that its delay, as `time+1`, and where it leaves and enters axes. Nodes with an axis are drawn as piles, edges
    with a delay dashed; a legend tells the rest.

    Args:
        graph: the network.
        columns: the most layers in a row. A deeper network goes on in the next row, as a text does.

    Returns:
        A figure, which a notebook shows and `figure.savefig(path)` writes. Its patches are labelled: a node by its
        name, an edge by `str(edge)`, the error of a node by `error of NAME`.

    Raises:
        SettingError: something else than a graph, or no whole number of columns.

    Reference: Chen et al. 2025, Fig. 1b.
    """
    require_kind("plot.graph: graph", graph, AbstractStructure, "give a Graph, as networks.mlp makes them")
    require_whole("plot.graph: columns", columns, 1)
    from energax.plot.drawing import draw_graph  # not above: `import energax` would wait a second for matplotlib

    return draw_graph(graph, columns)
