"""What the adaptors to other libraries share: every sample is settled on its own."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from energax.dynamics.base import Start
from energax.dynamics.phase import Phase
from energax.exceptions import SettingError
from energax.graph.parts import States
from energax.graph.structure import AnyGraph
from energax.layers import takes_batch
from energax.solvers.verdict import Equilibrium, conclude, ended_uphill, keep_in_scale, measure_scale


def settle_apart(
    phase: Phase, start: Start, tol: Array, name: str, one: Callable[[Phase, States, Array], tuple[States, Array]]
) -> Equilibrium:
    """One solve per sample, batched by `vmap`; the verdict is energax's.

    Args:
        phase: the phase of the batch.
        start: states to start from.
        tol: relative residual at which a sample counts as converged.
        name: of the solver, for messages.
        one: `(phase, states, scale)` of one sample, its batch axis of length one in the phase only, to its settled
            states and the steps taken; `scale` is what residuals are relative to.

    Raises:
        SettingError: a layer that takes a whole batch.
    """
    require_samples(phase.graph, name)
    states = start.states
    scale = measure_scale(phase, states, tol, None if phase.has_energy else phase.force(states))

    def alone(row, state, scale):
        return one(phase.take(row[None]), state, scale)

    settled, steps = jax.vmap(alone)(jnp.arange(len(scale.drive)), states, scale.drive)
    settled, lost = keep_in_scale(states, settled)
    lost |= ~jnp.isfinite(scale.drive)  # no force to set out with: the phase has no equilibrium
    if phase.has_energy:
        uphill = ended_uphill(phase, jnp.real(phase.energy(states)), jnp.real(phase.energy(settled)), states)
        lost |= uphill & (scale.residual(phase.force(settled)) > tol)  # a root above the start is no minimum, but one
    return conclude(phase, settled, steps, scale, lost, tol)


def require_samples(graph: AnyGraph, name: str) -> None:
    """Refuse layers that cannot be mapped over samples, by name."""
    for function, layer in graph.functions.items() if isinstance(graph.functions, dict) else ():
        if takes_batch(layer):
            raise SettingError(
                f"function {function!r} takes a whole batch, and {name} settles every sample on its own: use "
                "GradientFlow, ConjugateGradient or FixedPoint"
            )


def add_batch_axis(tree):
    """Add a batch axis of one."""
    return jax.tree.map(lambda a: a[None], tree)


def drop_batch_axis(tree):
    """Take the batch axis of one away."""
    return jax.tree.map(lambda a: a[0], tree)
