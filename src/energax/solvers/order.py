"""The order in which a sweep visits the nodes."""

import abc

import equinox as eqx

from energax.errors import SettingError
from energax.graph import Graph
from energax.structure import AnyGraph


class AbstractOrder(eqx.Module):
    """Which nodes are updated together."""

    @abc.abstractmethod
    def blocks(self, graph: AnyGraph, names: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
        """The blocks of one sweep, in order."""


class Synchronous(AbstractOrder):
    """All nodes at once, each from the others' old states. May oscillate."""

    def blocks(self, graph, names):
        """One block."""
        return (names,)


class Alternating(AbstractOrder):
    """Blocks of nodes that do not interact, one after the other: even and odd layers on a chain.

    Every block is minimised exactly, so the energy never rises (Scellier et al. 2023).
    """

    def blocks(self, graph, names):
        """The colours of the graph."""
        if not isinstance(graph, Graph):
            raise SettingError("alternating blocks need a Graph with edges to colour; use Synchronous()")
        return graph.colouring(names)
