"""Checks of a solver."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from energax.activations import identity
from energax.checks.means import (
    force_of,
    leaves,
    nudged_phase_of,
    precision,
    require,
    require_close,
    rounding,
    scale_of,
    start_of,
    take_part,
)
from energax.dynamics import PredictiveCoding
from energax.dynamics.base import AbstractDynamics, Start
from energax.dynamics.phase import Batch, Phase
from energax.graph.networks import mlp
from energax.graph.parts import States
from energax.solvers.engine import AbstractSolver
from energax.solvers.verdict import Verdict


def check_solver(
    make: Callable[[float, int], AbstractSolver], *, dynamics: AbstractDynamics | None = None, max_steps: int = 2000
) -> None:
    """Check a solver on a deep linear net, whose equilibrium a dense linear solve gives.

    Args:
        make: `(tol, max_steps)` to a solver.
        dynamics: a dynamics that is linear on identity activations; `PredictiveCoding()` by default. A solver by
            blocks takes `Hopfield()`.
        max_steps: steps that are enough for a small net.

    Raises:
        CheckError: the first broken promise.
    """
    dynamics = PredictiveCoding() if dynamics is None else dynamics
    graph = mlp([4, 5, 4, 3], identity(), gain=0.5, key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (4, 4))
    batch = Batch(x, jax.random.normal(jax.random.key(2), (4, 3)))
    phase = nudged_phase_of(dynamics, graph, batch)
    begin = start_of(phase)  # as a rule hands it over; states of which nothing is known follow below
    start = begin.states
    tol = max(precision(batch) ** 0.5 / 100, 100 * precision(batch))
    settle = eqx.filter_jit(lambda solver, phase, start: solver.solve(phase, start))
    settled = settle(make(tol, max_steps), phase, begin)

    check_solution(settled.states, linear_equilibrium(phase, start), settled.result, tol)
    check_verdict(phase, start, settled, tol)
    first = nudged_phase_of(dynamics, graph, take_part(batch, slice(1)))
    alone = settle(make(tol, max_steps), first, Start(jax.tree.map(lambda v: v[:1], start)))
    together = jax.tree.map(lambda v: v[:1], settled.states)
    require_close(together, alone.states, rounding(batch), "a sample's equilibrium depends on the rest of its batch")
    short = settle(make(tol, 1), phase, Start(jax.tree.map(lambda v: v + 1, start)))
    check_verdict(phase, jax.tree.map(lambda v: v + 1, start), short, tol)
    again = settle(make(tol, max_steps), phase, Start(settled.states))
    check_verdict(phase, settled.states, again, tol)
    check_solution(again.states, linear_equilibrium(phase, start), again.result, tol)


def check_solution(states: States, expected: States, result: Array, tol: float) -> None:
    """The equilibrium of the dense solve, and a verdict that says so."""
    require(bool(jnp.all(result == Verdict.CONVERGED)), f"verdicts {np.asarray(result)} on a linear net; expected 0")
    require_close(states, expected, 1e3 * tol, "the equilibrium is not the linear system's solution")


def check_verdict(phase: Phase, start: States, settled, tol: float) -> None:
    """The residual is what it is defined to be, and the verdict is what the residual says."""
    drive = np.asarray(scale_of(phase, start, jnp.asarray(tol)).drive)
    force = [np.asarray(f) for f in leaves(force_of(phase, settled.states))]
    residual = np.sqrt(sum(np.sum((f**2).reshape(len(f), -1), axis=1) for f in force)) / drive
    off = float(np.max(np.abs(np.asarray(settled.residual) - residual) / (tol + residual)))
    require(off <= 0.01, f"the residual is not |force| / drive at the states returned: off by {off:.3g} of its value")
    converged = np.asarray(settled.result) == Verdict.CONVERGED
    low = np.asarray(settled.residual) <= tol
    require(
        bool(np.all(converged == low)),
        f"verdicts {np.asarray(settled.result)} with residuals {np.asarray(settled.residual)} at tolerance {tol:.3g}",
    )


def linear_equilibrium(phase: Phase, start: States) -> States:
    """V with force(v) = 0 for an affine force, by a dense solve."""
    vector, unravel = ravel_pytree(start)

    @jax.jit
    def force(v):
        return ravel_pytree(phase.force(unravel(v)))[0]

    return unravel(vector - jnp.linalg.solve(jax.jit(jax.jacobian(force))(vector), force(vector)))
