"""The order in which a sweep visits the nodes."""

import abc

import equinox as eqx

from energax.dynamics.phase import Phase
from energax.exceptions import GraphError, SettingError
from energax.graph.graph import Graph


class AbstractOrder(eqx.Module):
    """Which nodes are updated together."""

    @abc.abstractmethod
    def blocks(self, phase: Phase, names: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
        """The blocks of one sweep over the nodes `names`, in order."""


class Synchronous(AbstractOrder):
    """All nodes at once, each from the others' old states. May oscillate."""

    def blocks(self, phase, names):
        """One block."""
        return (names,)


class Alternating(AbstractOrder):
    """Blocks of nodes that do not interact, one after the other: even and odd layers on a chain.

    A sweep begins where the phase is driven: at the nodes that the cost reads if there is a nudge, else as the graph's
    nodes are listed. On a chain it then does what two synchronous sweeps do. Every block is minimised exactly, so the
    energy never rises (Scellier et al. 2023).
    """

    def blocks(self, phase, names):
        """The colours of the graph."""
        if not isinstance(phase.graph, Graph):
            raise SettingError("alternating blocks need a Graph with edges to colour; use Synchronous()")
        try:
            colours = phase.graph.colouring(names)
        except GraphError as error:
            raise GraphError(f"{error}; update all nodes at once with FixedPoint(Synchronous())") from error
        if phase.target is None:
            return colours
        return tuple(sorted(colours, key=phase.graph.cost_term.isdisjoint))
