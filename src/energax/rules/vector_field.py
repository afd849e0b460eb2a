"""Rules for directed networks, which have a force and no energy."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from energax.arithmetic import scale, subtract
from energax.dynamics.phase import prepare_phase
from energax.rules.adjoint import through_force
from energax.rules.base import AbstractRule, Info, batch_size, free_phase, not_diverged, phase_info


class VectorFieldRule(AbstractRule):
    """g = dC/dtheta + (dforce/dtheta)^T nu, nu = (v^-beta - v^beta) / 2 beta, at the free equilibrium.

    The vector-field rule of Scellier et al. 2018 with a centred response: local, because the force on a unit reads
    its own synapses only. nu -> -J^-1 dC/dv where the exact signal is -J^-T dC/dv, so it equals the adjoint's
    gradient wherever J is symmetric. The Jacobian of a block energy's force rho(h) - v is not, even with symmetric
    weights: train those by `Contrastive`.

    Attributes:
        beta: nudge strength.
    """

    beta: Array = eqx.field(converter=jnp.asarray, default=0.1)

    @property
    def updates_per_batch(self):
        """One."""
        return 1

    def init(self, dynamics, graph, batch):
        """Nothing is carried."""
        return ()

    def __call__(self, dynamics, graph, batch, solver, carry):
        """Free phase, two nudged phases, and the response as signal."""
        clamped = graph.clamp(batch.x)
        size = batch_size(clamped)
        free, settled, report = free_phase(dynamics, graph, clamped, batch, solver)
        ends, phases = [], {"free": report}
        for name, beta in (("nudged", self.beta), ("opposite", -self.beta)):
            phase = prepare_phase(dynamics, graph, clamped, batch.key, batch.y, beta)
            ends.append(solver.solve(phase, settled.states))
            phases[name] = phase_info(phase, settled.states, ends[-1])
        keep = not_diverged(settled, ends[0], ends[1])
        response = scale(jnp.where(keep, 1 / (2 * self.beta), 0), subtract(ends[0].states, ends[1].states))
        gradient = through_force(
            free, clamped, settled.states, jax.tree.map(jnp.negative, response), batch.y, size, batch.key
        )
        output = free.output(settled.states)
        return gradient, carry, Info(output, dynamics.cost(output, batch.y), phases)

    def tune(self, dynamics, graph, batch, solver):
        """Measure in the nudged phase."""
        phase = prepare_phase(dynamics, graph, graph.clamp(batch.x), batch.key, batch.y, self.beta)
        return solver.calibrate(phase, dynamics.start(graph, phase.context).states)
