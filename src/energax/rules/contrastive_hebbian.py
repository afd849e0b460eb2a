"""Contrastive Hebbian and coupled learning: the output state is clamped instead of nudged."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from energax.arithmetic import add_trees
from energax.dynamics.phase import prepare_phase
from energax.exceptions import SettingError
from energax.rules.base import (
    AbstractRule,
    Info,
    batch_size,
    energy_gradient,
    free_phase,
    not_diverged,
    phase_info,
    require_energy,
)


class ContrastiveHebbian(AbstractRule):
    """g = (dE/dtheta(v^clamped) - dE/dtheta(v^free)) / s, the output clamped at v_free + s (y - v_free).

    s = 1 is contrastive Hebbian learning (Movellan 1991; Millidge et al. 2023, Eqs. 5 and 6); s < 1 is coupled
    learning (Stern et al. 2021). With `Hopfield(feedback_scale=gamma)` it approaches backprop as gamma -> 0
    (Xie & Seung 2003).

    Attributes:
        strength: s in (0, 1].
    """

    strength: Array = eqx.field(converter=jnp.asarray, default=1.0)

    @property
    def updates_per_batch(self):
        """One."""
        return 1

    def init(self, dynamics, graph, batch):
        """Nothing is carried."""
        return ()

    def __call__(self, dynamics, graph, batch, solver, carry):
        """Settle both phases and take their difference."""
        require_energy(dynamics, "ContrastiveHebbian")
        require_state(graph)
        clamped = graph.clamp(batch.x)
        size = batch_size(clamped)
        free, settled, report = free_phase(dynamics, graph, clamped, batch, solver)
        output = free.output(settled.states)
        both = {**clamped, graph.output: output + self.strength * (batch.y - output)}
        phase = prepare_phase(dynamics, graph, both, batch.key)
        start = {name: v for name, v in settled.states.items() if name != graph.output}
        end = solver.solve(phase, start)

        weights = jnp.where(not_diverged(settled, end), 1 / self.strength, 0)
        gradient = add_trees(
            energy_gradient(phase, both, end.states, weights, size, batch.key),
            energy_gradient(free, clamped, settled.states, -weights, size, batch.key),
        )
        info = Info(output, dynamics.cost(output, batch.y), {"free": report, "clamped": phase_info(phase, start, end)})
        return gradient, carry, info

    def tune(self, dynamics, graph, batch, solver):
        """Measure in the free phase."""
        phase = prepare_phase(dynamics, graph, graph.clamp(batch.x), batch.key)
        return solver.calibrate(phase, dynamics.start(graph, phase.context).states)


def require_state(graph) -> None:
    """Only a state can be clamped."""
    if not graph.node(graph.output).state:
        raise SettingError(
            f"the output {graph.output!r} holds no state (state=False), so it cannot be clamped; give it "
            "one, or nudge it with Contrastive"
        )
