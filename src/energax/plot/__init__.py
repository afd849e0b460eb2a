"""Pictures of networks, of relaxations, and of trainings."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from energax.checking import require_kind, require_whole
from energax.exceptions import SettingError
from energax.graph.structure import AbstractStructure
from energax.inference.trace import Trace

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


def relaxation(trace: Trace) -> "Figure":
    """How a relaxation went: energy above its lowest, and norm of every node's error and force, step by step.

    Lines are medians over the rows; the band of the energy holds eight tenths of them.

    Args:
        trace: what `Predictor.trace` (of a learner as well) returned.

    Raises:
        SettingError: something else.
    """
    require_kind("plot.relaxation: trace", trace, Trace, "give what learner.trace(x) returned")
    from energax.plot.curves import draw_relaxation

    return draw_relaxation(trace)


def regime(history: Sequence[dict[str, Any]]) -> "Figure":
    """How far a training was from the exact gradient, layer by layer, and how its relaxations ended, epoch by epoch.

    Args:
        history: `run.history`, or the lines of a run's `metrics.jsonl`.

    Raises:
        SettingError: no epochs, or a training that did not measure its regime.
    """
    rows = list(history)
    if not any("layer_cosine" in row for row in rows):
        raise SettingError("plot.regime: the history holds no regime: give one of a training with regime=True")
    from energax.plot.curves import draw_regime

    return draw_regime(rows)
