"""Langevin dynamics: gradient flow with noise, which draws states from exp(-F / T) in the place of settling them."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from energax.arithmetic import align_batch, norm
from energax.checking import as_setting, require_between, require_kind, require_whole
from energax.dynamics.base import AbstractEnergy
from energax.dynamics.phase import Phase
from energax.exceptions import SettingError
from energax.graph.parts import States
from energax.solvers.coordinates import StateCoordinates
from energax.solvers.engine import AbstractSolver
from energax.solvers.gradient_flow import AbstractStepBound, PerSample, bound_step
from energax.solvers.verdict import Equilibrium, Verdict, keep_in_scale, measure_scale

APART = 0x5A3D  # folded into every sample's key, so that noise shares no draw with random layers


class Langevin(AbstractSolver):
    """v <- v - h dF/dv + sqrt(h T / 2) (n_k + n_k+1), with n standard normal: every noise counts in two steps.

    After enough steps the states are a sample of exp(-F / T). Each noise is counted in two steps (Leimkuhler &
    Matthews 2013): the mean and the covariance of a Gaussian are then exact at every stable step, and elsewhere the
    law is off by the order of h^2, for one force a step. With noise of its own in every step (Euler-Maruyama) it would
    be off by the order of h, a Gaussian's variance by the factor 1 / (1 - h curvature / 2).

    What comes back has the verdict `SAMPLED`: a sample is no equilibrium, and its residual is not meant to be small.
    Rules that learn from equilibria refuse this solver; `FreeEnergy` takes it, and then learns from samples. Whether
    the steps were enough for the chain to forget its start is not tested.

    Every sample draws from its own key: give `relax` or `Batch` one.

    Attributes:
        step_size: h, in units of the states' time constant; the bound may shorten it.
        temperature: T > 0; 1 draws from exp(-F).
        steps: how many.
        bound: keeps the step stable, as that of `GradientFlow`.

    Raises:
        SettingError: no key; a dynamics whose force is not -dF/dv, since its samples have another law.
    """

    step_size: Array = eqx.field(converter=as_setting("Langevin: step_size"), default=0.1)
    temperature: Array = eqx.field(converter=as_setting("Langevin: temperature"), default=1.0)
    steps: int = eqx.field(static=True, default=500)
    bound: AbstractStepBound = eqx.field(default_factory=PerSample)

    def __check_init__(self):
        require_between("Langevin: step_size", self.step_size, 0, math.inf, open_least=True)
        require_between("Langevin: temperature", self.temperature, 0, math.inf, open_least=True)
        require_whole("Langevin: steps", self.steps, 1)
        require_kind("Langevin: bound", self.bound, AbstractStepBound, "give a step bound, as solvers.PerSample()")

    @property
    def samples(self):
        """Yes."""
        return True

    @property
    def nominal_step(self):
        """As given; the bound may shorten it."""
        return self.step_size

    def solve(self, phase, start):
        """Take all steps, and say which samples left every scale."""
        require_samplable(phase)
        view, states = StateCoordinates().view(phase, start)
        keys = jax.vmap(lambda key: jax.random.fold_in(key, APART))(phase.clamped.keys)
        scale = measure_scale(phase, states, jnp.ones(()), phase.force(states))
        step = bound_step(self.step_size, self.bound.limit(view, states), scale.drive)
        width = jnp.sqrt(step * self.temperature.astype(step.dtype) / 2)

        def advance(index, carry):
            states, before = carry
            noise = draw_noise(phase, keys, index + 1, states)
            force = phase.force(states)
            moved = {
                name: v + align_batch(step, v) * force[name] + align_batch(width, v) * (before[name] + noise[name])
                for name, v in states.items()
            }
            return moved, noise

        first = (states, draw_noise(phase, keys, 0, states))
        end, _ = jax.lax.fori_loop(0, self.steps, advance, first)
        end, lost = keep_in_scale(states, end)
        force = phase.force(end)
        lost |= ~jnp.isfinite(norm(force))
        result = jnp.where(lost, int(Verdict.DIVERGED), int(Verdict.SAMPLED))
        steps = jnp.full(lost.shape, self.steps)
        return Equilibrium(end, steps, jnp.where(lost, jnp.inf, scale.residual(force)), result, lost)

    def tighten(self, tol, factor):
        """A chain of `factor` times the steps: a sampler has no tolerance."""
        return eqx.tree_at(lambda s: s.steps, self, self.steps * factor)


def draw_noise(phase: Phase, keys: Array, index: Array | int, states: States) -> States:
    """Standard normal numbers for every free unit, of every sample's own key and of the step; 0 at known units."""
    at = jax.vmap(lambda key: jax.random.fold_in(key, index))(keys)
    noise = {}
    for place, name in enumerate(sorted(states)):
        like = states[name]
        noise[name] = jax.vmap(
            lambda key, place=place, like=like: jax.random.normal(
                jax.random.fold_in(key, place), like.shape[1:], like.dtype
            )
        )(at)
    return phase.release(noise)


def require_samplable(phase: Phase) -> None:
    """Refuse a phase without keys, and a force that descends no energy."""
    if not isinstance(phase.dynamics, AbstractEnergy):
        raise SettingError(
            f"Langevin draws from exp(-F / T), for which the force must be -dF/dv, and that of "
            f"{type(phase.dynamics).__name__} is another: use an AbstractEnergy, as PredictiveCoding"
        )
    if phase.clamped.keys is None:
        raise SettingError(
            "Langevin draws noise, and the phase has no key: give relax(..., key=jax.random.key(0)), or Batch a key"
        )
