"""How far a nudge has come: the nodes that have left rest after so many steps."""

from energax.dynamics import AbstractErrorEnergy
from energax.graph import Graph
from energax.phase import Phase


def spread(phase: Phase) -> tuple[tuple[str, ...], ...]:
    """The free nodes that a nudge has moved after 1, 2, ... steps from rest, up to the last step that adds any.

    At rest every prediction error is 0. A step along the force moves what the nudge draws on, and what shares an error
    with a node that has moved: one layer further with every step. Nothing is known where errors do not act one by one.
    """
    dynamics, graph = phase.dynamics, phase.graph
    if phase.target is None or not isinstance(graph, Graph):
        return ()
    if not isinstance(dynamics, AbstractErrorEnergy) or not dynamics.separate:
        return ()
    free, terms = graph.free(phase.context.clamped), graph.terms
    reached: list[frozenset[str]] = []
    moved = graph.cost_term.intersection(free)
    while moved not in (frozenset(), *reached[-1:]):
        reached.append(moved)
        moved = moved.union(*(term.intersection(free) for term in terms if term & moved))
    return tuple(tuple(name for name in free if name in moved) for moved in reached)
