"""Relaxation with any nodes clamped: inference, completion, associative memory and generation in one call."""

from collections.abc import Collection, Mapping

import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, PRNGKeyArray

from energax.dynamics.base import AbstractDynamics, Start
from energax.dynamics.phase import prepare_phase
from energax.exceptions import DataError, GraphError
from energax.graph.structure import AnyGraph, States, hold, list_names, promote
from energax.solvers.engine import AbstractSolver
from energax.solvers.verdict import Equilibrium


def relax(
    dynamics: AbstractDynamics,
    graph: AnyGraph,
    solver: AbstractSolver,
    *,
    clamp: Mapping[str, Array],
    start: States | None = None,
    key: PRNGKeyArray | None = None,
) -> Equilibrium:
    """Settle every node that is not clamped, without a nudge.

    Clamp the input to infer, the output to generate (the input relaxes), parts of both to complete. A part of a
    node cannot be clamped: split the node.

    Args:
        dynamics: how states move.
        graph: the network.
        solver: what settles them.
        clamp: node name -> value, shape `(batch, *shape)`.
        start: states to start from, by node name; nodes left out start as the dynamics starts them.
        key: for random layers; None switches chance off.

    Returns:
        The equilibrium, with a verdict per sample.

    Raises:
        DataError: nothing is clamped and a free node has no start, NaN or infinite values, or a shape that does not
            fit its node.
        GraphError: an unknown node, or one without a state.
    """
    held = hold(graph, clamp, key)
    clamped = held.values
    given = graph.clamp(start or {})
    for name in given:
        if name in clamped:
            raise GraphError(f"start gives {name!r} a state, but it is clamped")
    require_finite(clamped)
    require_finite(given)
    require_touched(graph, (*clamped, *given, *dynamics.anchored()))
    phase = prepare_phase(dynamics, graph, held)
    missing = [name for name in graph.free(clamped) if name not in given]
    if not missing:
        return solver.solve(phase, Start(promote(graph, given)))
    if not clamped:
        raise DataError(
            f"nothing is clamped, and start leaves out {', '.join(map(repr, missing))}: clamp a node, or give every "
            "free node a state, so that the batch has a size"
        )
    states = phase.start().states
    return solver.solve(phase, Start({**states, **{name: v.astype(states[name].dtype) for name, v in given.items()}}))


def require_touched(graph: AnyGraph, ends: Collection[str]) -> None:
    """Refuse nodes that nothing moves."""
    lost = graph.untouched(ends) if ends else ()
    if lost:
        raise GraphError(f"nothing moves {list_names(lost)}: clamp a node that they are joined to, or start them")


def require_finite(clamped: States) -> None:
    """Refuse NaN and infinite values, naming the first; traced values pass."""
    for name, value in clamped.items():
        if isinstance(value, Tracer):
            continue
        bad = jnp.argwhere(~jnp.isfinite(value), size=1, fill_value=-1)[0]
        if bad[0] >= 0:
            where = tuple(int(i) for i in bad)
            raise DataError(f"node {name!r}: value {value[where]} at index {where}; clamp finite numbers only")
