"""The exact gradient of the cost at an equilibrium, by implicit differentiation."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from energax.arithmetic import add_all, choose, total
from energax.dynamics.model import Model
from energax.dynamics.phase import Phase
from energax.graph.parts import Output, States
from energax.rules.base import (
    AbstractRule,
    Info,
    PhaseInfo,
    Rows,
    differentiate,
    free_phase,
    make_info,
    open_batch,
    require_target,
    weigh_sound,
)
from energax.solvers.linear import solve_force_jacobian
from energax.solvers.verdict import Equilibrium, Verdict


class Adjoint(AbstractRule):
    """g = dC/dtheta - (dforce/dtheta)^T lambda, with J^T lambda = dC/dv and J = dforce/dv at the free equilibrium.

    Recurrent backprop (Almeida 1987; Pineda 1987) on any dynamics whose Jacobian is regular. Units that a box
    activation saturates have no slope, so they drop out by themselves. `Info.solve` says how the linear solve of every
    sample went, and a sample's verdict and residual are the worse of its relaxation's and its solve's. Samples whose
    solve gave no numbers do not move the parameters.

    Attributes:
        tol: relative residual of the linear solve; None takes 100 eps.
        max_steps: bound on its products with J^T.
    """

    tol: float | None = eqx.field(static=True, default=None)
    max_steps: int = eqx.field(static=True, default=1000)

    def __call__(self, dynamics, graph, batch, solver, carry):
        """Settle the free phase, solve for lambda, and differentiate the force's parameters."""
        rows = open_batch(graph, batch)
        require_target(rows, "Adjoint")
        gradient, info = self.at(rows, *free_phase(dynamics, graph, rows, solver))
        return gradient, carry, info

    def at(self, rows: Rows, free: Phase, settled: Equilibrium, report: PhaseInfo) -> tuple[Model, Info]:
        """The gradient at a free equilibrium, as `free_phase` returns it."""
        target = require_target(rows, "Adjoint")
        weights = weigh_sound(rows, settled)
        slope = jax.grad(lambda v: jnp.sum(free.cost(v, target)))(settled.states)
        # what does not count must not keep the others waiting either
        slope = choose(weights > 0, slope, jax.tree.map(jnp.zeros_like, slope))
        found = solve_force_jacobian(free, settled.states, slope, self.tol, self.max_steps)
        regular = found.result != Verdict.DIVERGED
        signal = choose(regular, found.states, jax.tree.map(jnp.zeros_like, slope))
        gradient = through_force(free, settled.states, signal, target, jnp.where(regular, weights, 0))
        output = free.output(settled.states)
        result = jnp.where(rows.finite & ~settled.lost, found.result, int(Verdict.DIVERGED))
        energy = jnp.full_like(found.residual, jnp.nan)
        solve = PhaseInfo(energy, energy, found.steps, found.residual, result)
        # a gradient is as good as the worse of the two, and verdicts are counted once per sample
        worse = jnp.maximum(report.result, result), jnp.maximum(report.residual, found.residual)
        report = eqx.tree_at(lambda info: (info.result, info.residual), report, worse)
        return gradient, make_info(free.dynamics, rows, output, {"free": report}, solve)


def through_force(phase: Phase, states: States, signal: States, target: Output, weights: Array) -> Model:
    """sum_b weights_b (dC/dtheta + (dforce/dtheta)^T signal) at fixed states.

    Directed rules differ only in the signal: -lambda is exact, the response of the states to a nudge is the
    vector-field rule of Scellier et al. 2018.

    Args:
        phase: the free phase.
        states: its equilibrium.
        signal: one number per state.
        target: what the cost compares with.
        weights: per sample, shape `(batch,)`; 1 / batch for the batch's average.
    """

    def objective(model):
        again = phase.prepare_again(model)
        force = again.force(states)
        pulled = add_all(total(force[name] * s) for name, s in signal.items())
        return jnp.sum(weights * (pulled + again.cost(states, target)))

    return differentiate(phase.model, objective)
