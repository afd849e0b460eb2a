"""Relaxations that are watched step by step."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from energax.arithmetic import norm
from energax.checking import require_between
from energax.dynamics.base import AbstractDynamics
from energax.dynamics.phase import Batch, Phase
from energax.exceptions import SettingError
from energax.graph.parts import States
from energax.graph.structure import AnyGraph
from energax.rules.base import free_phase, open_batch
from energax.solvers import engine
from energax.solvers.engine import AbstractIteration, AbstractSolver


class Trace(eqx.Module):
    """What was seen of a relaxation; every array has shape `(steps + 1, rows)`.

    Attributes:
        energy: F; NaN for a dynamics without an energy.
        force: node -> norm of its force.
        error: node -> norm of the difference between its state and what arrives at it, for every free or clamped node
            that receives something.
    """

    energy: Array
    force: dict[str, Array]
    error: dict[str, Array]


def trace_phase(
    dynamics: AbstractDynamics,
    graph: AnyGraph,
    solver: AbstractSolver,
    batch: Batch,
    steps: int,
    beta: float | None,
) -> Trace:
    """Watch the free phase of a batch, or the nudged one that follows it; `Predictor.trace` says more."""
    if not isinstance(solver, AbstractIteration):
        raise SettingError(
            f"trace: {type(solver).__name__} takes no steps that could be watched: give with_solver GradientFlow() or "
            "another iteration"
        )
    if (batch.y is None) != (beta is None):
        raise SettingError("trace: give y and beta together, for a nudged phase, or neither, for the free one")
    if beta is not None:
        require_between("trace: beta", beta, -jnp.inf, jnp.inf)
    return _watch(dynamics, graph, solver, batch, steps, None if beta is None else jnp.asarray(beta, float))


@eqx.filter_jit
def _watch(dynamics, graph, solver: AbstractIteration, batch: Batch, steps: int, beta: Array | None) -> Trace:
    """The relaxation as one program."""
    rows = open_batch(graph, batch)
    if beta is None:
        phase = free_phase(dynamics, graph, rows, solver)[0]
        start = phase.start()
    else:
        free, settled, _ = free_phase(dynamics, graph, rows, solver)
        phase = free.prepare_again(reference=settled.states).nudge_by(beta.astype(rows.weights.dtype), rows.target)
        start = engine.Start(settled.states, settled.known)
    _, seen = engine.trace(solver, phase, start, steps, lambda states: observe(phase, states))
    return seen


def observe(phase: Phase, states: States) -> Trace:
    """Energy, forces and errors of one moment, shape `(rows,)` each."""
    everywhere = phase.everywhere(states)
    predicted = phase.graph.predict(everywhere, phase.sent)
    errors = {name: everywhere[name] - v for name, v in predicted.items() if name in everywhere}
    return Trace(
        jnp.real(phase.energy(states)),
        {name: norm({name: f}) for name, f in phase.force(states).items()},
        jax.tree.map(lambda e: norm({"": e}), errors),
    )
