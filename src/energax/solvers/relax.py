"""Relaxation with any nodes clamped: inference, completion, associative memory and generation in one call."""

import dataclasses
from collections.abc import Collection, Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, PRNGKeyArray

from energax.arithmetic import add_all, choose, hold_still, total
from energax.checking import find_lost
from energax.dynamics.base import AbstractDynamics, Start
from energax.dynamics.phase import prepare_phase
from energax.exceptions import DataError, GraphError, SettingError
from energax.graph.clamping import hold, promote
from energax.graph.parts import Clamped, States, list_names
from energax.graph.structure import AnyGraph
from energax.solvers.engine import AbstractSolver
from energax.solvers.linear import solve_force_jacobian
from energax.solvers.verdict import Equilibrium, Verdict


def relax(
    dynamics: AbstractDynamics,
    graph: AnyGraph,
    solver: AbstractSolver,
    *,
    clamp: Mapping[str, Array],
    known: Mapping[str, Array] | None = None,
    start: States | None = None,
    key: PRNGKeyArray | None = None,
) -> Equilibrium:
    """Settle every node that is not clamped, without a nudge.

    Clamp the input to infer, the output to generate (the input relaxes), parts of both to complete. A part of a
    node is clamped by `known`, which says for every sample which of the node's units are held. Nothing need be clamped
    where a node has a start, as in an associative memory: the batch then has the size of the start.

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
        known: name of a clamped node -> booleans, shape `(batch, *shape)`: True at the units that are held. The others
            relax, are among the states that are returned, and may be NaN in `clamp`: `~jnp.isnan(x)` is a mask.
        start: states to start from, by node name; nodes left out start as the dynamics starts them.
        key: for random layers and for solvers that draw; None switches chance off.

    Returns:
        The equilibrium, with a verdict per sample.

    Raises:
        DataError: nothing is clamped and nothing has a start, everything is clamped, NaN or infinite values, a mask or
            a shape that does not fit its node. Values that are traced cannot be looked at: the verdict on their samples
            is `DIVERGED`.
        GraphError: an unknown node, or one without a state.
    """
    given = graph.clamp(start or {})
    held = hold(graph, clamp, key, known, next(iter(given.values()), None))
    for name in given:
        if name in held.values:
            raise GraphError(f"start gives {name!r} a state, but it is clamped")
    if not (held.held or given):
        raise DataError("nothing is clamped and nothing has a start: give a node either, so that the batch has a size")
    if not graph.free(held.values):
        raise DataError(f"every node is clamped ({list_names(held.values)}): leave out those that shall relax")
    sizes = {name: value.shape[0] for name, value in given.items()} | {"clamp": held.example.shape[0]}
    if len(set(sizes.values())) > 1:
        raise DataError(f"start and clamp have batches of different sizes: {sizes}")
    require_finite({**held.values, **{name: part.value for name, part in held.known.items()}})
    require_finite(given)
    require_touched(graph, (*held.held, *given, *dynamics.anchored()))
    begin, settler = hold_still((promote(graph, given), solver))
    return _settle_compiled((dynamics, graph, held), begin, settler)


@eqx.filter_custom_vjp
def _settle(model: tuple[AbstractDynamics, AnyGraph, Clamped], given: States, solver: AbstractSolver) -> Equilibrium:
    """Settle the phase of a model from the states that are given, and the dynamics' own where none is."""
    dynamics, graph, clamped = model
    phase = prepare_phase(dynamics, graph, clamped)
    if set(graph.free(clamped.values)) <= set(given):
        return solver.solve(phase, Start(phase.pin(given)))
    states = phase.start().states
    begin = {**states, **{name: v.astype(states[name].dtype) for name, v in given.items()}}
    return solver.solve(phase, Start(phase.pin(begin)))


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
    if solver.samples:
        raise SettingError(
            f"{type(solver).__name__} draws samples, and only an equilibrium has the derivative of an equilibrium: "
            "differentiate its steps, by solver.solve(phase, start)"
        )
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
    values, known = keep((clamped.values, clamped.known))
    held = dataclasses.replace(clamped, values=values, known=known)
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


def require_finite(values: Mapping[str, Array]) -> None:
    """Refuse NaN and infinite values, naming the first; traced values pass."""
    for name, value in values.items():
        if isinstance(value, Tracer):
            continue
        found = np.asarray(value)  # numpy looks at them: inside of a compiled function JAX would trace the look
        where = find_lost(found)
        if where is not None:
            raise DataError(
                f"node {name!r}: value {found[where]} at index {where}; clamp finite numbers, and leave missing ones "
                f"free by known={{{name!r}: mask}}"
            )
