"""Continuous time: dv/dt = force(v) by any diffrax solver, until its steady-state event."""

import importlib
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from energax.arithmetic import norm
from energax.checking import as_setting
from energax.exceptions import SettingError
from energax.solvers.apart import add_batch_axis, drop_batch_axis, settle_apart
from energax.solvers.engine import AbstractSolver


class Diffrax(AbstractSolver):
    """Integrate every sample's own ordinary differential equation to its steady state.

    For dynamics whose course in time matters, and as a check on the other solvers: adaptive steps, no step bound.
    diffrax is no dependency of energax: `pip install diffrax`.

    Attributes:
        method: a diffrax solver, e.g. `diffrax.Tsit5()`; stiff nets want `diffrax.Kvaerno5()`.
        tol: relative residual at which the event ends the integration and a sample counts as converged.
        time: how long to integrate at most, in units of the states' time constant.
        max_steps: bound on the solver's steps.
        accuracy: relative and absolute tolerance of the integration; a tenth of `tol` where that is less, because an
            adaptive solver wanders about a steady state as far as its tolerance lets it.
    """

    method: Any
    tol: Array = eqx.field(converter=as_setting("Diffrax: tol"), default=1e-2)
    time: Array = eqx.field(converter=as_setting("Diffrax: time"), default=1e3)
    max_steps: int = eqx.field(static=True, default=4096)
    accuracy: Array = eqx.field(converter=as_setting("Diffrax: accuracy"), default=1e-4)

    def solve(self, phase, start):
        """One integration per sample, batched by `vmap`."""
        diffrax = import_diffrax()
        accuracy = jnp.minimum(self.accuracy, self.tol / 10)

        def one(phase, state, scale):
            def size(force):
                return norm(add_batch_axis(force))[0]

            solution = diffrax.diffeqsolve(
                diffrax.ODETerm(lambda t, v, _: drop_batch_axis(phase.force(add_batch_axis(v)))),
                self.method,
                0.0,
                self.time,
                None,
                state,
                stepsize_controller=diffrax.PIDController(rtol=accuracy, atol=accuracy),
                event=diffrax.Event(diffrax.steady_state_event(rtol=0.0, atol=self.tol * scale, norm=size)),
                max_steps=self.max_steps,
                throw=False,
                adjoint=diffrax.DirectAdjoint(),
            )
            return drop_batch_axis(solution.ys), solution.stats["num_steps"]

        return settle_apart(phase, start, self.tol, "Diffrax", one)

    def tighten(self, tol, factor):
        """A smaller tolerance for the event, more steps and more time."""
        return Diffrax(self.method, tol, self.time * factor, self.max_steps * factor, self.accuracy)


def import_diffrax():
    """The diffrax package."""
    try:
        return importlib.import_module("diffrax")
    except ModuleNotFoundError as error:
        raise SettingError("the solver Diffrax needs the package diffrax: pip install diffrax") from error
