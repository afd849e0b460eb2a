"""Incremental learning: a parameter step after every relaxation step."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from energax.dynamics.phase import Phase, prepare_phase
from energax.exceptions import SettingError
from energax.graph.structure import States
from energax.rules.base import AbstractRule, Info, batch_size, energy_gradient, not_diverged, phase_info, require_energy
from energax.solvers.engine import AbstractIteration, Stopping


class _Going(eqx.Module):
    states: States
    output: Array


class Incremental(AbstractRule):
    """g = dF/dtheta at beta = 1 after every single relaxation step (iPC, Salvatori et al. 2024).

    The states of a batch go on from update to update while the parameters move under them.

    Attributes:
        steps: relaxation steps, and parameter steps, per batch.
        beta: nudge strength; the gradient is divided by it.
    """

    steps: int = eqx.field(static=True, default=8)
    beta: Array = eqx.field(converter=jnp.asarray, default=1.0)

    @property
    def updates_per_batch(self):
        """One per relaxation step."""
        return self.steps

    def init(self, dynamics, graph, batch):
        """Start from the dynamics' free start."""
        phase = prepare_phase(dynamics, graph, graph.clamp(batch.x), batch.key)
        start = dynamics.start(graph, phase.context).states
        return _Going(start, phase.output(start))

    def __call__(self, dynamics, graph, batch, solver, carry):
        """One relaxation step, then the gradient where it arrived."""
        require_energy(dynamics, "Incremental")
        clamped = graph.clamp(batch.x)
        phase = self._phase(dynamics, graph, clamped, batch)
        end = one_step(solver).solve(phase, carry.states)
        weights = jnp.where(not_diverged(end), 1 / self.beta, 0)
        gradient = energy_gradient(phase, clamped, end.states, weights, batch_size(clamped), batch.key)
        info = Info(
            carry.output,
            dynamics.cost(carry.output, batch.y),
            {"nudged": phase_info(phase, carry.states, end)},
        )
        return gradient, _Going(end.states, carry.output), info

    def _phase(self, dynamics, graph, clamped, batch) -> Phase:
        return prepare_phase(dynamics, graph, clamped, batch.key, batch.y, self.beta)

    def tune(self, dynamics, graph, batch, solver):
        """Measure at the start of the batch."""
        phase = self._phase(dynamics, graph, graph.clamp(batch.x), batch)
        return solver.calibrate(phase, dynamics.start(graph, phase.context).states)


def one_step(solver):
    """The same solver, taking one step without a test."""
    if not isinstance(solver, AbstractIteration):
        raise SettingError(f"Incremental takes single steps, and {type(solver).__name__} has none; use GradientFlow")
    return eqx.tree_at(lambda s: s.stop, solver, Stopping(solver.stop.tol, 1, 0))
