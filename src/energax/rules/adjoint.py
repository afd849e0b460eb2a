"""The exact gradient of the cost at an equilibrium, by implicit differentiation."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from energax.arithmetic import add_all, add_trees, choose, dot, norm, scale, total
from energax.dynamics.model import Model
from energax.dynamics.phase import Phase
from energax.graph.structure import Output, States
from energax.rules.base import (
    AbstractRule,
    differentiate,
    free_phase,
    make_info,
    open_batch,
    require_target,
    weigh_sound,
)


class Adjoint(AbstractRule):
    """g = dC/dtheta - (dforce/dtheta)^T lambda, with J^T lambda = dC/dv and J = dforce/dv at the free equilibrium.

    Recurrent backprop (Almeida 1987; Pineda 1987) on any dynamics whose Jacobian is regular. Units that a box
    activation saturates have no slope, so they drop out by themselves. Conjugate gradients on the normal
    equations, per sample: no symmetry is assumed.

    Attributes:
        tol: relative residual of the linear solve; None takes 100 eps.
        max_steps: bound on its iterations.
    """

    tol: float | None = eqx.field(static=True, default=None)
    max_steps: int = eqx.field(static=True, default=1000)

    def __call__(self, dynamics, graph, batch, solver, carry):
        """Settle the free phase, solve for lambda, and differentiate the force's parameters."""
        rows = open_batch(graph, batch)
        target = require_target(rows, "Adjoint")
        free, settled, report = free_phase(dynamics, graph, rows, solver)
        weights = weigh_sound(rows, settled)
        slope = jax.grad(lambda v: jnp.sum(free.cost(v, target)))(settled.states)
        # what does not count must not keep the others waiting either
        slope = choose(weights > 0, slope, jax.tree.map(jnp.zeros_like, slope))
        signal = jax.tree.map(jnp.negative, transposed_solve(free, settled.states, slope, self.tol, self.max_steps))
        gradient = through_force(free, settled.states, signal, target, weights)
        output = free.output(settled.states)
        return gradient, carry, make_info(dynamics, rows, output, {"free": report})


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


def transposed_solve(phase: Phase, states: States, right: States, tol: float | None, max_steps: int) -> States:
    """Solve J^T lambda = right with J = dforce/dv at `states`, per sample."""
    _, forward = jax.linearize(phase.force, states)
    back = jax.linear_transpose(forward, states)

    def normal(vector):
        return forward(back(vector)[0])

    return conjugate_gradients(normal, forward(right), tol, max_steps)


def conjugate_gradients(operator, right: States, tol: float | None, max_steps: int) -> States:
    """Solve operator(x) = right per sample, for a positive definite operator."""
    size = norm(right)
    tiny = jnp.finfo(size.dtype).tiny
    goal = (100 * jnp.finfo(size.dtype).eps if tol is None else tol) * size

    def unfinished(state):
        _, residual, _, taken = state
        return jnp.any(norm(residual) > goal) & (taken < max_steps)

    def advance(state):
        x, residual, direction, taken = state
        active = norm(residual) > goal
        pushed = operator(direction)
        square = dot(residual, residual)
        length = square / jnp.maximum(dot(direction, pushed), tiny)
        x_new = add_trees(x, scale(length, direction))
        r_new = add_trees(residual, scale(-length, pushed))
        d_new = add_trees(r_new, scale(dot(r_new, r_new) / jnp.maximum(square, tiny), direction))
        return (
            choose(active, x_new, x),
            choose(active, r_new, residual),
            choose(active, d_new, direction),
            taken + 1,
        )

    zero = jax.tree.map(jnp.zeros_like, right)
    return jax.lax.while_loop(unfinished, advance, (zero, right, right, 0))[0]
