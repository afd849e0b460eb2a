"""How the relaxation of each sample ended, and what that is judged by."""

import enum

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from energax.arithmetic import choose, norm
from energax.dynamics.phase import Phase
from energax.graph.structure import States
from energax.solvers.coordinates.base import Point

BEYOND = 1e8  # a residual, or states relative to where they began, that no relaxation comes back from


class Verdict(enum.IntEnum):
    """How the relaxation of one sample ended."""

    CONVERGED = 0
    STALLED = 1
    OUT_OF_STEPS = 2
    DIVERGED = 3

    @property
    def message(self) -> str:
        """What the verdict means and what to do about it."""
        return MESSAGES[self]


MESSAGES = {
    Verdict.CONVERGED: "the residual fell below the tolerance",
    Verdict.STALLED: "the energy no longer falls although a residual is left: a kink, or the limit of the precision",
    Verdict.OUT_OF_STEPS: "max_steps were too few for the tolerance: raise max_steps, or use a faster solver",
    Verdict.DIVERGED: "the states grew without bound: lower step_size, or leave the step bound on",
}


class Equilibrium(eqx.Module):
    """Settled states and the verdict on each sample.

    Attributes:
        states: states of the free nodes.
        steps: steps taken, shape `(batch,)`.
        residual: |force| / max(drive, 64 eps (1 + |v|)), shape `(batch,)`.
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


def judge(residual: Array, tol: Array, otherwise: Array | int) -> Array:
    """Converged, diverged, or `otherwise`, per sample."""
    result = jnp.where(residual <= tol, int(Verdict.CONVERGED), otherwise)
    return jnp.where(residual < BEYOND, result, int(Verdict.DIVERGED))


def conclude(phase: Phase, states: States, steps: Array, scale: Array, lost: Array, tol: Array) -> Equilibrium:
    """The verdict on a relaxation that was not tested on the way; without an energy only the force can tell more."""
    residual = norm(phase.force(states)) / scale
    if not phase.has_energy:
        lost |= ~(residual < BEYOND)
    settled = jnp.where(residual <= tol, int(Verdict.CONVERGED), int(Verdict.OUT_OF_STEPS))
    result = jnp.where(lost, int(Verdict.DIVERGED), settled)
    return Equilibrium(states, steps, jnp.where(lost, jnp.inf, residual), result, lost)


def keep_in_scale(begin: Point, end: Point) -> tuple[Point, Array]:
    """`end`, with samples that left every scale back at `begin`, and which these are.

    They must not reach a gradient, where a weight of 0 does not cancel a NaN.
    """
    lost = ~(norm(end) <= BEYOND * (1 + norm(begin)))
    return choose(lost, begin, end), lost


def ended_uphill(before: Array, after: Array, floor: Array) -> Array:
    """Which samples' energies ended above where they began: an unstable step that was given no time to overflow.

    Their states stay: the verdict keeps them from the parameters, and the forward pass that is taken here serves
    whatever comes after. A rise that rounding makes is none: of a cost that is nearly 0, what it falls by is lost in
    its own rounding, while what the errors rise by is not (`floor`: that of the states where they began).
    """
    return ~(after - before <= 0.1 * (jnp.abs(before) + jnp.abs(after)) + (floor / 32) ** 2)


def precision_floor(states: States) -> Array:
    """64 eps (1 + |v|) per sample: the smallest drive that a residual is measured against.

    A 32nd part of it, 2 eps (1 + |v|), is what rounding alone leaves of a force: nothing can be gained below.
    """
    size = norm(states)
    return 64 * jnp.finfo(size.dtype).eps * (1 + size)
