"""The engine that every iterative solver runs on: steps and the one stopping rule."""

import abc
import math
from collections.abc import Callable
from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from energax.arithmetic import choose, dot, subtract
from energax.checking import as_setting, require_between, require_kind, require_whole
from energax.dynamics.base import Start
from energax.dynamics.phase import Phase
from energax.graph.parts import States
from energax.solvers.compaction import relax_in_groups
from energax.solvers.coordinates import AbstractCoordinates, AbstractView
from energax.solvers.coordinates.base import Point
from energax.solvers.verdict import (
    Equilibrium,
    Scale,
    Verdict,
    conclude,
    ended_uphill,
    judge,
    keep_in_scale,
    measure_scale,
)


class Stopping(eqx.Module):
    """The one stopping rule, in state coordinates and per sample.

    Attributes:
        tol: relative residual at which a sample has converged.
        max_steps: steps after which it is given up.
        check_every: steps between tests; 0 takes exactly `max_steps` steps and tests once at the end.
        stall: a sample has stalled where a test interval lowers its energy by less than `stall * tol^2` of what
            the relaxation has gained so far (near an equilibrium the energy to be gained goes with the residual's
            square).
    """

    tol: Array = eqx.field(converter=as_setting("Stopping: tol"), default=1e-2)
    max_steps: int = 200  # not static: rules that differ in it alone may share a compiled program
    check_every: int = eqx.field(static=True, default=5)
    stall: Array = eqx.field(converter=as_setting("Stopping: stall"), default=0.1)

    def __check_init__(self):
        require_whole("Stopping: max_steps", self.max_steps, 1)
        require_between("Stopping: tol", self.tol, 0, math.inf)
        require_between("Stopping: stall", self.stall, 0, math.inf)
        require_whole("Stopping: check_every (0 for no test on the way)", self.check_every, 0)

    def tighten(self, tol: float, factor: int) -> "Stopping":
        """A rule for references: a smaller tolerance, more steps, tests on the way."""
        return Stopping(tol, self.max_steps * factor, self.check_every or 5, self.stall)

    @property
    def negligible(self) -> Array:
        """Share of the energy gained so far that counts as nothing."""
        return self.stall * self.tol**2


class AbstractSolver(eqx.Module):
    """Settles force = 0 and says how that went."""

    @abc.abstractmethod
    def solve(self, phase: Phase, start: Start) -> Equilibrium:
        """Relax from `start`: the states of the free nodes, and what is known of them."""

    def calibrate(self, phase: Phase, start: Start) -> Self:
        """The same solver with whatever it measures once in a while measured on this phase. Nothing, unless said."""
        return self

    @abc.abstractmethod
    def tighten(self, tol: float, factor: int) -> "AbstractSolver":
        """A solver like this one, with a smaller tolerance and `factor` times the steps, for references."""

    @property
    def samples(self) -> bool:
        """Whether it draws samples, which are no equilibria. No, unless said."""
        return False

    @property
    def nominal_step(self) -> Array:
        """The step of the states that is asked for; NaN where the solver has none."""
        return jnp.asarray(jnp.nan)

    @property
    def fixed_steps(self) -> int | None:
        """The number of steps of every relaxation, where no test ends one before; None for solvers that test."""
        return None


class AbstractIteration(AbstractSolver):
    """A solver given by one step; everything else is the engine's.

    Attributes:
        stop: the stopping rule, always in state coordinates.
        coordinates: where the steps are taken.
    """

    stop: eqx.AbstractVar[Stopping]
    coordinates: eqx.AbstractVar[AbstractCoordinates]

    def __check_init__(self):
        name = type(self).__name__
        require_kind(f"{name}: stop", self.stop, Stopping, "give a Stopping, as Stopping(1e-3)")
        require_kind(
            f"{name}: coordinates", self.coordinates, AbstractCoordinates, "give coordinates, as ErrorCoordinates()"
        )

    @property
    def fixed_steps(self):
        """All steps that the stopping rule allows, where it tests only at the end."""
        return None if self.stop.check_every else self.stop.max_steps

    def init(self, view: AbstractView, point: Point) -> Any:
        """What the solver carries from step to step: arrays with the batch first, or scalars. Nothing, unless said."""
        return ()

    @abc.abstractmethod
    def step(self, view: AbstractView, point: Point, carry: Any) -> tuple[Point, Any]:
        """One step of all samples."""

    def retreat(self, carry: Any, rose: Array) -> tuple[Any, Array]:
        """React where the energy rose since the last test. Nothing is taken back, unless said.

        Args:
            carry: the solver's carry.
            rose: shape `(batch,)`.

        Returns:
            The new carry, and the mask of samples to be put back to where they were at the last test.
        """
        return carry, jnp.zeros_like(rose)

    def solve(self, phase, start):
        """Run the engine."""
        return settle(self, phase, start)

    def tighten(self, tol, factor):
        """The stopping rule tightened."""
        return eqx.tree_at(lambda s: s.stop, self, self.stop.tighten(tol, factor))


class _Gain(eqx.Module):
    """What the energy tells of a relaxation; arrays of shape `(batch,)`.

    Attributes:
        total: work done so far.
        energy: F at the last test.
        watched: F and the residual at the last look, every `WATCH` tests.
        begun: F where the relaxation began.
    """

    total: Array
    energy: Array
    watched: tuple[Array, Array]
    begun: Array


class _Progress(eqx.Module):
    """The engine's loop state; arrays without a node are of shape `(batch,)`."""

    point: Point
    states: States
    force: States
    carry: Any
    gain: _Gain
    rises: Array
    residual: Array
    steps: Array
    scale: Scale
    result: Array
    taken: Array


RUNNING = -1
WATCH = 10  # tests after which the energy itself is compared
RETREATS = 3  # rises of the energy in a row, each followed by a shorter step, after which a sample has stalled


def settle(solver: AbstractIteration, phase: Phase, begin: Start) -> Equilibrium:
    """Relax until every sample has a verdict; finished samples stop moving."""
    stop, start = solver.stop, begin.states
    if not start:
        return nothing_to_settle(phase)
    view, point = solver.coordinates.view(phase, begin)
    if stop.check_every == 0:
        scale = measure_scale(phase, start, stop.tol, None if phase.has_energy else phase.force(start))
        # the first step stands before the loop, so that the compiler finds what it shares with the start (the forward
        # pass of a phase that begins at its sweep) and computes that once
        opened, carry = solver.step(view, point, solver.init(view, point))
        end, _ = run(solver, view, opened, carry, stop.max_steps - 1)
        end, lost = keep_in_scale(point, end)
        if phase.has_energy:
            lost |= ended_uphill(phase, phase.energy_of(begin), view.energy(end), start)
        return conclude(phase, view.states(end), jnp.full(scale.drive.shape, stop.max_steps), scale, lost, stop.tol)

    force = phase.force(start)
    scale = measure_scale(phase, start, stop.tol, force)
    residual = scale.residual(force)
    result = jnp.where(scale.beyond(force), int(Verdict.DIVERGED), judge(scale, stop.tol, start, force, RUNNING))
    energy = jnp.real(phase.energy(start))
    none = jnp.zeros(residual.shape, int)
    gain = _Gain(jnp.zeros_like(residual), energy, (energy, residual), energy)
    carry = solver.init(view, point)
    first = _Progress(point, start, force, carry, gain, none, residual, none, scale, result, jnp.zeros((), int))

    def stage(view: AbstractView, now: _Progress, rest: int) -> _Progress:
        end = jax.lax.while_loop(
            lambda now: (jnp.sum(unfinished(now)) > rest) & (now.taken < stop.max_steps),
            lambda now: advance_and_test(solver, view, now),
            now,
        )
        # marked here and not at the very end: a group of slow samples begins where the whole batch stopped, so the
        # steps of one group say nothing of what another has left
        late = unfinished(end) & (end.taken >= stop.max_steps)
        uphill = phase.has_energy & ended_uphill(view.phase, end.gain.begun, end.gain.energy, end.states)
        verdict = jnp.where(uphill, int(Verdict.DIVERGED), int(Verdict.OUT_OF_STEPS))
        return eqx.tree_at(lambda now: now.result, end, jnp.where(late, verdict, end.result))

    end = relax_in_groups(stage, view, first, unfinished)
    lost = end.result == Verdict.DIVERGED
    return Equilibrium(end.states, end.steps, jnp.where(lost, jnp.inf, end.residual), end.result, lost)


def nothing_to_settle(phase: Phase) -> Equilibrium:
    """The equilibrium of a net without free nodes."""
    none = jnp.zeros(len(phase.clamped.example))
    count = jnp.zeros(none.shape, int)
    return Equilibrium({}, count, none, count + int(Verdict.CONVERGED), none > 0, known=True)


def unfinished(now: _Progress) -> Array:
    """The samples that have no verdict yet, shape `(batch,)`."""
    return now.result == RUNNING


def advance_and_test(solver: AbstractIteration, view: AbstractView, now: _Progress) -> _Progress:
    """Take the steps up to the next test and judge every sample."""
    stop, phase = solver.stop, view.phase
    count = jnp.minimum(stop.check_every, stop.max_steps - now.taken)
    point, carry = run(solver, view, now.point, now.carry, count)
    states = view.states(point)
    force = phase.force(states)
    residual = now.scale.residual(force)
    judged = judge(now.scale, stop.tol, states, force, RUNNING)
    beyond = now.scale.beyond(force)
    active = unfinished(now)
    work, rose = measure_work(stop, phase, now, states, force)
    carry, back = solver.retreat(carry, active & rose)
    gain, stalled = measure_progress(stop, phase, now, states, residual, work, rose, back)
    stalled |= judged == Verdict.STALLED
    rises = jnp.where(back, now.rises + 1, 0)
    # what went back is judged where it was; where ever shorter steps do not help, it sits on a kink
    stays = (stalled & (judged != Verdict.CONVERGED)) | beyond
    ended = jnp.where(back, (rises >= RETREATS) | stalled, stays)
    uphill = phase.has_energy & ended_uphill(phase, gain.begun, gain.energy, states)
    failed = jnp.where(beyond | uphill, int(Verdict.DIVERGED), int(Verdict.STALLED))
    result = jnp.where(ended, failed, jnp.where(back, RUNNING, judged))
    moved = active & ~back & (result != Verdict.DIVERGED)
    return _Progress(
        choose(moved, point, now.point),
        choose(moved, states, now.states),
        choose(moved, force, now.force),
        carry,
        eqx.tree_at(lambda gain: gain.total, gain, jnp.where(moved, gain.total, now.gain.total)),
        rises,
        jnp.where(active & ~back, residual, now.residual),
        now.steps + jnp.where(active, count, 0),
        now.scale,
        jnp.where(active, result, now.result),
        now.taken + count,
    )


def measure_work(stop: Stopping, phase: Phase, now: _Progress, states: States, force: States) -> tuple[Array, Array]:
    """The work done since the last test, and where the energy rose; neither is known without an energy."""
    if not phase.has_energy:
        return jnp.zeros_like(now.residual), jnp.zeros(now.residual.shape, bool)
    work = work_between(now.states, states, now.force, force)
    return work, (work < -stop.negligible * now.gain.total) | ~jnp.isfinite(work)


def work_between(before: States, after: States, force_before: States, force_after: States) -> Array:
    """What F falls by, per sample: exact for a quadratic energy, and free of the cancellation in F - F'."""
    return dot(subtract(after, before), jax.tree.map(lambda f, g: (f + g) / 2, force_before, force_after))


def measure_progress(
    stop: Stopping,
    phase: Phase,
    now: _Progress,
    states: States,
    residual: Array,
    work: Array,
    rose: Array,
    back: Array,
) -> tuple[_Gain, Array]:
    """What the energy says of the steps since the last test: the gain, and where there is nothing more to be gained."""
    if not phase.has_energy:
        return now.gain, jnp.zeros(residual.shape, bool)
    total = now.gain.total + jnp.where(rose, 0, work)
    stalled = ~rose & (jnp.abs(work) <= stop.negligible * total)
    # the work is that of a smooth energy: where the steps cross a kink to and fro it says more than was gained, so now
    # and then the energy itself, or the residual, must have fallen
    energy = jnp.where(back, now.gain.energy, jnp.real(phase.energy(states)))
    before, residual_before = now.gain.watched
    due = (now.taken // stop.check_every) % WATCH == WATCH - 1
    least = jnp.maximum(stop.negligible * total, 4 * jnp.finfo(energy.dtype).eps * jnp.abs(energy))
    stalled |= due & (before - energy <= least) & (residual > 0.9 * residual_before)
    watched = (jnp.where(due, energy, before), jnp.where(due, residual, residual_before))
    return _Gain(total, energy, watched, now.gain.begun), stalled


def run(solver: AbstractIteration, view: AbstractView, point: Point, carry: Any, count) -> tuple[Point, Any]:
    """`count` steps without a test."""
    return jax.lax.fori_loop(0, count, lambda _, at: solver.step(view, *at), (point, carry))


def trace(
    solver: AbstractIteration, phase: Phase, start: Start, steps: int, observe: Callable[[States], Any]
) -> tuple[States, Any]:
    """Take `steps` steps and record `observe(states)` before the first and after each of them.

    Returns:
        The last states, and the observations stacked along a new first axis of length `steps + 1`.
    """
    view, point = solver.coordinates.view(phase, start)

    def step(at, _):
        after = solver.step(view, *at)
        return after, observe(view.states(after[0]))

    (point, _), seen = jax.lax.scan(step, (point, solver.init(view, point)), length=steps)
    return view.states(point), jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), observe(start.states), seen)
