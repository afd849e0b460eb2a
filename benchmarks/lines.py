"""What of energax is measured: one row per solver. To add a solver, add a `Line` to `LINES`."""

import dataclasses
from collections.abc import Callable
from typing import Self

import optax

from benchmarks.network import dynamics_of
from benchmarks.workload import Workload
from energax.dynamics.base import Start
from energax.dynamics.phase import Phase
from energax.graph.graph import Graph
from energax.rules import AbstractRule, Backprop, Contrastive, one_sided, unit_nudge
from energax.solvers import (
    AbstractSolver,
    Alternating,
    ConjugateGradient,
    Equilibrium,
    FixedPoint,
    GradientFlow,
    Held,
    Stopping,
    Synchronous,
    Unbounded,
)
from energax.solvers.coordinates import ErrorCoordinates
from energax.training import Learner

FEED_FORWARD = ("mlp", "conv")


class PerPhase(AbstractSolver):
    """One solver for free phases, another for nudged ones: customary lengths differ."""

    free: AbstractSolver
    nudged: AbstractSolver

    def solve(self, phase: Phase, start: Start) -> Equilibrium:
        """Choose by the phase."""
        return (self.free if phase.target is None else self.nudged).solve(phase, start)

    def calibrate(self, phase: Phase, start: Start) -> Self:
        """Tune both."""
        return type(self)(self.free.calibrate(phase, start), self.nudged.calibrate(phase, start))

    def tighten(self, tol: float, factor: int) -> Self:
        """Tighten both."""
        return type(self)(self.free.tighten(tol, factor), self.nudged.tighten(tol, factor))


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of the picture: a solver over a sweep of step numbers.

    Attributes:
        name: for table and picture.
        kinds: kinds of workload that it is for.
        solver: `(workload, steps) -> solver`.
        sweep: numbers of steps (or factors by which the residual must fall); None stands for the workload's own.
        conv_sweep: the same for convolutional nets, whose steps are long.
        same: whether the workload's own number of steps is the customary computation, which other systems repeat.
        refresh: batches between measurements of the step bound, 0 where none is held.
        backprop: whether it relaxes nothing.
    """

    name: str
    kinds: tuple[str, ...]
    solver: Callable[[Workload, int], AbstractSolver]
    sweep: tuple[int | None, ...] = (None,)
    conv_sweep: tuple[int | None, ...] | None = None
    same: bool = False
    refresh: int = 0
    backprop: bool = False

    def steps(self, workload: Workload) -> list[int]:
        """Numbers of steps on a workload, each once."""
        sweep = self.conv_sweep if workload.kind == "conv" and self.conv_sweep else self.sweep
        return sorted({workload.steps if steps is None else steps for steps in sweep})

    def learner(self, workload: Workload, graph: Graph, steps: int) -> Learner:
        """What is timed."""
        optimiser = optax.sgd(workload.learning_rate)
        rule: AbstractRule = Backprop() if self.backprop else rule_of(workload)
        return Learner(graph, dynamics_of(workload), self.solver(workload, steps), rule, optimiser, self.refresh)


def rule_of(workload: Workload) -> AbstractRule:
    """Predictive coding at beta = 1, or one-sided equilibrium propagation."""
    return Contrastive(one_sided(workload.beta) if workload.kind == "hopfield" else unit_nudge())


def exactly(steps: int) -> Stopping:
    """A number of steps without a test on the way."""
    return Stopping(max_steps=max(steps, 1), check_every=0)


def gradient_flow(workload: Workload, steps: int) -> AbstractSolver:
    """The customary gradient descent on the states, its step as given."""
    return GradientFlow(step_size=workload.step_size, stop=exactly(steps), bound=Unbounded())


def nesterov(workload: Workload, steps: int) -> AbstractSolver:
    """Momentum, the step bounded by a curvature measured every 50 batches."""
    return GradientFlow(step_size=0.2, momentum=0.7, stop=exactly(steps), bound=Held())


def conjugate_gradient(workload: Workload, steps: int) -> AbstractSolver:
    """Conjugate gradients in the states."""
    return ConjugateGradient(stop=exactly(steps))


def conjugate_gradient_on_errors(workload: Workload, steps: int) -> AbstractSolver:
    """Conjugate gradients in the errors."""
    return ConjugateGradient(stop=exactly(steps), coordinates=ErrorCoordinates())


def errors_to_tolerance(workload: Workload, factor: int) -> AbstractSolver:
    """Conjugate gradients on the errors until the residual has fallen by a factor, sample by sample."""
    return ConjugateGradient(stop=Stopping(1 / factor, 100, check_every=1), coordinates=ErrorCoordinates())


def synchronous(workload: Workload, steps: int) -> AbstractSolver:
    """The customary sweeps over all units at once; the nudged phase takes its share of them."""
    return sweeps(workload, steps, Synchronous())


def alternating(workload: Workload, steps: int) -> AbstractSolver:
    """Even and odd layers in turn."""
    return sweeps(workload, steps, Alternating())


def sweeps(workload: Workload, steps: int, order) -> AbstractSolver:
    """A free and a nudged phase in the workload's proportion."""
    nudged = max(2, round(steps * workload.nudged / workload.steps))  # one sweep may not reach the first layer
    return PerPhase(FixedPoint(order=order, stop=exactly(steps)), FixedPoint(order=order, stop=exactly(nudged)))


LINES = (
    Line("energax backprop", (*FEED_FORWARD, "hopfield"), gradient_flow, sweep=(0,), same=True, backprop=True),
    Line(
        "energax gradient flow",
        FEED_FORWARD,
        gradient_flow,
        sweep=(None, 100, 200, 400),
        conv_sweep=(None, 32),
        same=True,
    ),
    Line(
        "energax Nesterov",
        FEED_FORWARD,
        nesterov,
        sweep=(5, 10, 20, 40, 80),
        conv_sweep=(4, 8, 20),
        refresh=50,
    ),
    Line("energax CG", FEED_FORWARD, conjugate_gradient, sweep=(5, 10, 20, 40), conv_sweep=(4, 8)),
    Line(
        "energax CG on errors",
        FEED_FORWARD,
        conjugate_gradient_on_errors,
        sweep=(1, 2, 3, 5, 8, 12),
        conv_sweep=(1, 2, 4),
    ),
    Line(
        "energax CG on errors, residual down",
        FEED_FORWARD,
        errors_to_tolerance,
        sweep=(5, 10, 30, 100, 200),  # 200: the recipes' common tolerance
        conv_sweep=(3, 10),
    ),
    Line("energax synchronous", ("hopfield",), synchronous, sweep=(10, None, 40), same=True),
    Line("energax alternating", ("hopfield",), alternating, sweep=(5, 10, 20)),
)
