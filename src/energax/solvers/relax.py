"""Relaxation with any nodes clamped: inference, completion, associative memory and generation in one call."""

from collections.abc import Collection, Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, PRNGKeyArray

from energax.arithmetic import add_all, choose, hold_still, total
from energax.dynamics.base import AbstractDynamics, Start
from energax.dynamics.phase import prepare_phase
from energax.exceptions import DataError, GraphError
from energax.graph.parts import Clamped, States, list_names
from energax.graph.structure import AnyGraph, hold, promote
from energax.solvers.engine import AbstractSolver
from energax.solvers.linear import solve_force_jacobian
from energax.solvers.verdict import Equilibrium, Verdict


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

    The states can be differentiated in reverse, by the parameters of graph and dynamics and by the clamped values:
    implicitly, as the equilibrium that they are, whatever steps led there and wherever these began. A derivative is as
    exact as the states are settled. Samples that diverged, or whose linear solve found no numbers (a singular
    Jacobian), contribute 0 to it. The steps themselves are differentiated by `solver.solve`, where it takes a fixed
    number of them.

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
        DataError: nothing is clamped and nothing has a start, NaN or infinite values, or a shape that does not fit
            its node. Values that are traced cannot be looked at: the verdict on their samples is `DIVERGED`.
        GraphError: an unknown node, or one without a state.
    """
    held = hold(graph, clamp, key)
    given = graph.clamp(start or {})
    for name in given:
        if name in held.values:
            raise GraphError(f"start gives {name!r} a state, but it is clamped")
    if not (held.values or given):
        raise DataError("nothing is clamped and nothing has a start: give a node either, so that the batch has a size")
    require_finite(graph, clamp)
    require_finite(graph, start or {})
    require_touched(graph, (*held.values, *given, *dynamics.anchored()))
    begin, settler = hold_still((promote(graph, given), solver))
    return _settle_compiled((dynamics, graph, held), begin, settler)


@eqx.filter_custom_vjp
def _settle(model: tuple[AbstractDynamics, AnyGraph, Clamped], given: States, solver: AbstractSolver) -> Equilibrium:
    """Settle the phase of a model from the states that are given, and the dynamics' own where none is."""
    dynamics, graph, clamped = model
    phase = prepare_phase(dynamics, graph, clamped)
    missing = [name for name in graph.free(clamped.values) if name not in given]
    if not missing:
        return solver.solve(phase, Start(given))
    if not clamped.values:
        silent = graph.zeros(missing, next(iter(given.values())))
        return solver.solve(phase, Start({**silent, **given}))
    states = phase.start().states
    return solver.solve(phase, Start({**states, **{name: v.astype(states[name].dtype) for name, v in given.items()}}))


_settle_compiled = eqx.filter_jit(_settle)
"""One program, and the same one in the next call with the same shapes."""


def require_touched(graph: AnyGraph, ends: Collection[str]) -> None:
    """Refuse nodes that nothing moves."""
    lost = graph.untouched(ends)
    if lost:
        raise GraphError(f"nothing moves {list_names(lost)}: clamp a node that they are joined to, or start them")


@_settle.def_fwd
def _settle_forward(perturbed, model, given, solver):
    """The equilibrium, which is all that its derivative needs."""
    settled = _settle(model, given, solver)
    return settled, settled


@_settle.def_bwd
def _settle_backward(settled, slope, perturbed, model, given, solver):
    """Pull back through dv = -J^-1 dforce, which keeps the force of every sample at 0."""
    dynamics, graph, clamped = model
    sound = ~settled.lost & (settled.result != Verdict.DIVERGED)

    def keep(tree):
        # a weight of 0 does not cancel a NaN
        return choose(sound, tree, jax.tree.map(jnp.zeros_like, tree))

    states = keep(settled.states)
    held = Clamped(keep(clamped.values), keys=clamped.keys)
    right = {
        name: jnp.zeros_like(v) if slope.states[name] is None else slope.states[name] for name, v in states.items()
    }
    found = solve_force_jacobian(prepare_phase(dynamics, graph, held), states, keep(right))
    regular = sound & (found.result != Verdict.DIVERGED)
    signal = choose(regular, found.states, jax.tree.map(jnp.zeros_like, states))

    def push(model):
        dynamics, graph, held = model
        force = prepare_phase(dynamics, graph, held).force(states)
        return jnp.sum(add_all(total(force[name] * s) for name, s in signal.items()))

    return eqx.filter_grad(push)((dynamics, graph, held))


def require_finite(graph: AnyGraph, values: Array | Mapping[str, Array]) -> None:
    """Refuse NaN and infinite values, naming the first; traced values pass."""
    for name, value in (values if isinstance(values, Mapping) else {graph.inputs[0]: values}).items():
        if isinstance(value, Tracer):
            continue
        known = np.asarray(value)  # numpy looks at them: inside of a compiled function JAX would trace the look
        bad = np.argwhere(~np.isfinite(known))
        if len(bad):
            where = tuple(int(i) for i in bad[0])
            raise DataError(f"node {name!r}: value {known[where]} at index {where}; clamp finite numbers only")
