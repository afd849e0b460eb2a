"""What the adaptors to other libraries share: every sample is settled on its own."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from energax.dynamics.base import Start
from energax.dynamics.phase import Phase, prepare_phase
from energax.graph.structure import States
from energax.solvers.verdict import Equilibrium, conclude, ended_uphill, keep_in_scale, precision_floor


def settle_apart(
    phase: Phase, start: States | Start, tol: Array, one: Callable[[Phase, States, Array], tuple[States, Array]]
) -> Equilibrium:
    """One solve per sample, batched by `vmap`; the verdict is energax's.

    Args:
        phase: the phase of the batch.
        start: states to start from.
        tol: relative residual at which a sample counts as converged.
        one: `(phase, states, scale)` of one sample, its batch axis of length one in the phase only, to its settled
            states and the steps taken; `scale` is what residuals are relative to.
    """
    start = Start.at(start).states
    floor = precision_floor(start)
    scale = jnp.maximum(phase.drive(start), floor)
    beta = None if phase.beta is None else jnp.broadcast_to(phase.beta, scale.shape)

    def alone(state, clamped, target, beta, scale):
        one_phase = prepare_phase(
            phase.dynamics, phase.graph, add_batch_axis(clamped), None, add_batch_axis(target), add_batch_axis(beta)
        )
        return one(one_phase, state, scale)

    states, steps = jax.vmap(alone)(start, phase.context.clamped, phase.target, beta, scale)
    states, lost = keep_in_scale(start, states)
    if phase.has_energy:
        lost |= ended_uphill(jnp.real(phase.energy(start)), jnp.real(phase.energy(states)), floor)
    return conclude(phase, states, steps, scale, lost, tol)


def add_batch_axis(tree):
    """Add a batch axis of one."""
    return jax.tree.map(lambda a: a[None], tree)


def drop_batch_axis(tree):
    """Take the batch axis of one away."""
    return jax.tree.map(lambda a: a[0], tree)
