"""How the relaxation of each sample ended, and what that is judged by."""

import enum

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from energax.arithmetic import choose, norm
from energax.dynamics.phase import Phase
from energax.graph.parts import States
from energax.solvers.coordinates.base import Point

BEYOND = 1e8  # a residual, or states relative to where they began, that no relaxation comes back from


class Verdict(enum.IntEnum):
    """How the relaxation of one sample ended."""

    CONVERGED = 0
    STALLED = 1
    OUT_OF_STEPS = 2
    DIVERGED = 3
    SAMPLED = 4

    @property
    def message(self) -> str:
        """What the verdict means and what to do about it."""
        return MESSAGES[self]


MESSAGES = {
    Verdict.CONVERGED: "the residual fell below the tolerance",
    Verdict.STALLED: "the energy no longer falls although a residual is left: a kink, or the limit of the precision",
    Verdict.OUT_OF_STEPS: "max_steps were too few for the tolerance: raise max_steps, or use a faster solver",
    Verdict.DIVERGED: "the states grew without bound, or ended above where they began: lower step_size or leave the "
    "step bound on; under a nudge, "
    "lower beta, because a strong one may leave no minimum",
    Verdict.SAMPLED: "drawn by a sampler: a sample is no equilibrium, and its residual is not meant to be small",
}


class Equilibrium(eqx.Module):
    """Settled states and the verdict on each sample.

    Attributes:
        states: states of the free nodes.
        steps: steps taken, shape `(batch,)`.
        residual: |force| / drive, shape `(batch,)`: what is left of the force that set the phase in motion; infinite
            where the sample diverged.
        result: a `Verdict` as an integer, shape `(batch,)`.
        lost: samples that diverged, shape `(batch,)`: they must not move the parameters. Where there is an energy, it
            tells without the residual, so that a training step whose verdicts nobody reads does not compute them.
        known: True where the states are an equilibrium by construction, which no relaxation found.
    """

    states: States
    steps: Array
    residual: Array
    result: Array
    lost: Array
    known: bool = eqx.field(static=True, default=False)

    def share(self, verdict: Verdict) -> Array:
        """Share of the samples with this verdict."""
        return jnp.mean(self.result == verdict, dtype=self.residual.dtype)


class Scale(eqx.Module):
    """What forces are measured by, per sample, shape `(batch,)`.

    Attributes:
        drive: what a residual is relative to; never 0.
        limit: a force from which no relaxation comes back.
    """

    drive: Array
    limit: Array

    def residual(self, force: States) -> Array:
        """|force| / drive."""
        return norm(force) / self.drive

    def beyond(self, force: States) -> Array:
        """Which samples' forces are no numbers, or from which no relaxation comes back."""
        return ~(norm(force) < self.limit)


def measure_scale(phase: Phase, start: States, tol: Array, force: States | None = None) -> Scale:
    """What forces are measured by in a relaxation from `start`.

    The drive of the phase. Where a nudge is exactly 0, the phase is a free one, and is measured as one. Where nothing
    drives a free phase (a memory that recalls from its start alone), the force at the start, and no less than makes
    rounding converged, because there is no drive that rounding could hide.

    Args:
        phase: the phase.
        start: where it begins.
        tol: relative residual at which a sample has converged.
        force: the force at `start`, where it is known; none of that size is beyond all scales.
    """
    rounding = norm(rounding_floor(start))
    if phase.target is None:
        drive = phase.drive(start)
        begin = norm(phase.force(start) if force is None else force)
        drive = jnp.where(drive == 0, jnp.maximum(begin, rounding / tol), drive)
    else:
        drive = phase.drive(start)
        still = drive == 0
        free = phase.nudge_by(None, None)
        drive = jax.lax.cond(
            jnp.any(still), lambda: jnp.where(still, jnp.maximum(free.drive(start), rounding), drive), lambda: drive
        )
    known = rounding if force is None else jnp.maximum(norm(force), rounding)
    return Scale(drive, BEYOND * jnp.maximum(drive, known))


def judge(scale: Scale, tol: Array, states: States, force: States, otherwise: int) -> Array:
    """The verdict on states per sample; `otherwise` where the force alone does not decide.

    Rounding is looked for unit by unit: one large unit must not hide what the others are pulled by. A sample has
    stalled where, without the units whose force is no more than their rounding, it would have converged.
    """
    rest = jax.tree.map(lambda f, floor: jnp.where(jnp.abs(f) > floor, f, 0), force, rounding_floor(states))
    stalled = jnp.where(scale.residual(rest) <= tol, int(Verdict.STALLED), otherwise)
    return jnp.where(scale.residual(force) <= tol, int(Verdict.CONVERGED), stalled)


def conclude(phase: Phase, states: States, steps: Array, scale: Scale, lost: Array, tol: Array) -> Equilibrium:
    """The verdict on a relaxation that was not tested on the way; without an energy only the force can tell more."""
    force = phase.force(states)
    if not phase.has_energy:
        lost |= scale.beyond(force)
    result = jnp.where(lost, int(Verdict.DIVERGED), judge(scale, tol, states, force, int(Verdict.OUT_OF_STEPS)))
    return Equilibrium(states, steps, jnp.where(lost, jnp.inf, scale.residual(force)), result, lost)


def keep_in_scale(begin: Point, end: Point) -> tuple[Point, Array]:
    """`end`, with samples that left every scale back at `begin`, and which these are.

    They must not reach a gradient, where a weight of 0 does not cancel a NaN.
    """
    lost = ~(norm(end) <= BEYOND * (1 + norm(begin)))
    return choose(lost, begin, end), lost


def ended_uphill(phase: Phase, before: Array, after: Array, states: States) -> Array:
    """Which samples' energies ended above where they began: an unstable step that was given no time to overflow.

    Their states stay: the verdict keeps them from the parameters, and the forward pass that is taken here serves
    whatever comes after. A rise that rounding makes is none. Two things are rounded: the errors, by the rounding of
    `states`, at either end, and the nudge's beta C, of which C is known to the rounding of numbers about 1 (of
    log(1 + tiny), of logits), however small it is itself. Complex states do not descend: the real part of their energy
    may rise all the way to the equilibrium.
    """
    if any(jnp.iscomplexobj(v) for v in states.values()):
        return jnp.zeros(before.shape, bool)
    rounding = norm(rounding_floor(states)) ** 2
    if phase.beta is not None:
        rounding += 64 * jnp.finfo(after.dtype).eps * jnp.abs(phase.beta)
    return ~(after - before <= 0.1 * (jnp.abs(before) + jnp.abs(after)) + rounding)


def rounding_floor(states: States) -> States:
    """2 eps (1 + |v|) of every unit: what rounding alone leaves of its force, below which nothing can be gained."""
    return jax.tree.map(lambda v: 2 * jnp.finfo(v.dtype).eps * (1 + jnp.abs(v)), states)
