"""Incremental learning: a parameter step after every relaxation step."""

import math

import equinox as eqx
from jaxtyping import Array

from energax.checking import as_setting, require_between, require_whole
from energax.dynamics.base import FreeGradient, Start
from energax.dynamics.phase import prepare_phase
from energax.exceptions import SettingError
from energax.graph.parts import Output, States
from energax.rules.base import (
    AbstractRule,
    energy_gradient,
    make_info,
    open_batch,
    phase_info,
    require_energy,
    require_target,
    weigh_sound,
)
from energax.solvers.engine import AbstractIteration, Stopping


class _Going(eqx.Module):
    states: States
    output: Output


class Incremental(AbstractRule):
    """g = dF/dtheta at beta = 1 after every single relaxation step (iPC, Salvatori et al. 2024).

    The states of a batch go on from update to update while the parameters move under them.

    Attributes:
        steps: relaxation steps, and parameter steps, per batch.
        beta: nudge strength; the gradient is divided by it.
    """

    steps: int = eqx.field(static=True, default=8)
    beta: Array = eqx.field(converter=as_setting("Incremental: beta"), default=1.0)

    def __check_init__(self):
        require_whole("Incremental: steps", self.steps, 1)
        require_between("Incremental: beta", self.beta, 0, math.inf, open_least=True)

    @property
    def updates_per_batch(self):
        """One per relaxation step."""
        return self.steps

    def init(self, dynamics, graph, batch):
        """Start from the dynamics' free start."""
        phase = prepare_phase(dynamics, graph, open_batch(graph, batch).clamped)
        start = phase.start().states
        return _Going(start, phase.output(start))

    def __call__(self, dynamics, graph, batch, solver, carry):
        """One relaxation step, then the gradient where it arrived."""
        if require_energy(dynamics, "Incremental").free_gradient(graph) is FreeGradient.OWN:
            raise SettingError(
                f"Incremental takes dF/dtheta of a nudged phase alone, and the free phase of {type(dynamics).__name__} "
                "has a gradient of its own: use Contrastive with rules.centred(beta)"
            )
        rows = open_batch(graph, batch)
        target = require_target(rows, "Incremental")
        beta = self.beta.astype(rows.weights.dtype)
        phase = prepare_phase(dynamics, graph, rows.clamped, target=target, beta=beta)
        end = one_step(solver).solve(phase, Start(carry.states))
        gradient = energy_gradient(phase, end.states, weigh_sound(rows, end) / beta)
        phases = {"nudged": phase_info(phase, carry.states, end, rows)}
        info = make_info(dynamics, rows, carry.output, phases)
        return gradient, _Going(end.states, carry.output), info


def one_step(solver):
    """The same solver, taking one step without a test."""
    if not isinstance(solver, AbstractIteration):
        raise SettingError(f"Incremental takes single steps, and {type(solver).__name__} has none; use GradientFlow")
    return eqx.tree_at(lambda s: s.stop, solver, Stopping(solver.stop.tol, 1, 0))
