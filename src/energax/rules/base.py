"""What every rule shares: its call, what it reports, and the parameter gradient of a weighted energy."""

import abc
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, PyTree

from energax.dynamics.base import AbstractDynamics, AbstractTotalEnergy
from energax.dynamics.phase import Batch, Phase, prepare_phase
from energax.exceptions import SettingError
from energax.graph.structure import AnyGraph, States
from energax.solvers.engine import AbstractSolver
from energax.solvers.verdict import Equilibrium, Verdict


class PhaseInfo(eqx.Module):
    """One relaxation, per sample; with several nudge strengths, sample after sample for each of them.

    Attributes:
        energy_before, energy_after: total energy F at the start and at the end (NaN without an energy).
        steps, residual, result: as in `Equilibrium`.
    """

    energy_before: Array
    energy_after: Array
    steps: Array
    residual: Array
    result: Array


class Info(eqx.Module):
    """What a rule reports of one batch.

    Attributes:
        output: output of the free phase (or of the feed-forward pass), shape `(batch, ...)`.
        cost: C of that output per sample, shape `(batch,)`.
        phases: name of the phase -> what its relaxation did; empty for rules that relax nothing.
    """

    output: Array
    cost: Array
    phases: dict[str, PhaseInfo]


class AbstractRule(eqx.Module):
    """Turns settled states into a parameter gradient."""

    @property
    @abc.abstractmethod
    def updates_per_batch(self) -> int:
        """How many gradients one batch yields; `fit` applies each before asking for the next."""

    @abc.abstractmethod
    def init(self, dynamics: AbstractDynamics, graph: AnyGraph, batch: Batch) -> Any:
        """What the rule carries from one update to the next on the same batch."""

    @abc.abstractmethod
    def __call__(
        self,
        dynamics: AbstractDynamics,
        graph: AnyGraph,
        batch: Batch,
        solver: AbstractSolver,
        carry: Any,
    ) -> tuple[PyTree, Any, Info]:
        """One parameter gradient.

        Returns:
            `(gradient, carry, info)`; the gradient has the structure of `graph`, None at what is no parameter,
            and is the batch's average.
        """

    @abc.abstractmethod
    def tune(self, dynamics: AbstractDynamics, graph: AnyGraph, batch: Batch, solver: AbstractSolver) -> AbstractSolver:
        """The solver with what it measures once in a while measured where this rule relaxes."""


def free_phase(
    dynamics: AbstractDynamics,
    graph: AnyGraph,
    clamped: States,
    batch: Batch,
    solver: AbstractSolver,
) -> tuple[Phase, Equilibrium, PhaseInfo]:
    """Settle the free phase, or take it from the dynamics where it is known by construction."""
    phase = prepare_phase(dynamics, graph, clamped, batch.key)
    start = dynamics.start(graph, phase.context)
    if start.settled:
        return (
            phase,
            known_equilibrium(start.states),
            phase_info(phase, start.states, known_equilibrium(start.states)),
        )
    settled = solver.solve(phase, start.states)
    return phase, settled, phase_info(phase, start.states, settled)


def known_equilibrium(states: States) -> Equilibrium:
    """An equilibrium that needed no relaxation."""
    like = next(iter(states.values()))
    zeros = jnp.zeros(like.shape[0], like.dtype)
    steps = jnp.zeros(like.shape[0], int)
    converged = jnp.full_like(steps, Verdict.CONVERGED)
    return Equilibrium(states, steps, zeros, converged, jnp.zeros(steps.shape, bool), known=True)


def phase_info(phase: Phase, start: States, settled: Equilibrium) -> PhaseInfo:
    """What the relaxation from `start` to `settled` did."""
    return PhaseInfo(phase.energy(start), phase.energy(settled.states), settled.steps, settled.residual, settled.result)


def require_energy(dynamics: AbstractDynamics, rule: str) -> AbstractTotalEnergy:
    """The dynamics, if it has an energy to differentiate."""
    if not isinstance(dynamics, AbstractTotalEnergy):
        raise SettingError(
            f"{rule} differentiates an energy, and {type(dynamics).__name__} has none; use Directed or Adjoint"
        )
    return dynamics


def energy_gradient(
    phase: Phase, clamped: States, states: States, weights: Array, batch: int, key: PRNGKeyArray | None = None
) -> PyTree:
    """d/dtheta of sum_b weights_b F_b / batch at fixed states; real part where the weights are complex.

    F, not E: with a direct output or an external readout the last map is in C.

    Args:
        phase: dynamics, graph, target and nudge strength; its context is computed again here, inside the
            gradient, because hoisted maps have parameters too.
        clamped: clamped values.
        states: settled states.
        weights: per sample, shape `(samples,)`.
        batch: what to divide by.
        key: for random layers.
    """

    def objective(graph):
        again = prepare_phase(phase.dynamics, graph, clamped, key, phase.target, phase.beta)
        return jnp.real(jnp.sum(weights * again.energy(states))) / batch

    return eqx.filter_grad(objective)(phase.graph)


def not_diverged(*ends: Equilibrium) -> Array:
    """Samples none of whose relaxations diverged, shape `(batch,)`; the others must not move the parameters.

    Relaxations may hold several points per sample, one batch after the other; the first holds one.
    """
    batch = ends[0].lost.shape[0]
    lost = [jnp.any(end.lost.reshape(-1, batch), axis=0) for end in ends]
    return ~jnp.any(jnp.stack(lost), axis=0)


def batch_size(clamped: States) -> int:
    """Number of samples."""
    return next(iter(clamped.values())).shape[0]
