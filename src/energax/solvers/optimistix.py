"""Any optimistix root finder or minimiser as a solver."""

from typing import Any

import equinox as eqx
import optimistix as optx
from jaxtyping import Array

from energax.checking import as_setting
from energax.dynamics.phase import Phase
from energax.exceptions import SettingError
from energax.solvers.apart import add_batch_axis, drop_batch_axis, settle_apart
from energax.solvers.engine import AbstractSolver


class Optimistix(AbstractSolver):
    """Settle every sample on its own with an optimistix solver, e.g. `optx.Newton` or `optx.BFGS`.

    Attributes:
        method: an `optimistix.AbstractRootFinder` (on the force) or `AbstractMinimiser` (on the energy). Its
            own tolerances decide when it stops; the verdict is energax's.
        tol: relative residual at which a sample counts as converged.
        max_steps: bound on the solver's steps.
    """

    method: Any
    tol: Array = eqx.field(converter=as_setting("Optimistix: tol"), default=1e-2)
    max_steps: int = eqx.field(static=True, default=200)

    def solve(self, phase, start):
        """One solve per sample, batched by `vmap`."""
        return settle_apart(phase, start, self.tol, "Optimistix", self._settle)

    def _settle(self, phase: Phase, state, scale):
        if isinstance(self.method, optx.AbstractRootFinder):
            found = optx.root_find(
                lambda v, _: drop_batch_axis(phase.force(add_batch_axis(v))),
                self.method,
                state,
                max_steps=self.max_steps,
                throw=False,
            )
        elif isinstance(self.method, optx.AbstractMinimiser):
            if not phase.has_energy:
                raise SettingError(f"{type(phase.dynamics).__name__} has no energy to minimise; use a root finder")
            found = optx.minimise(
                lambda v, _: phase.energy(add_batch_axis(v))[0],
                self.method,
                state,
                max_steps=self.max_steps,
                throw=False,
            )
        else:
            raise SettingError(f"{type(self.method).__name__} is neither an optimistix root finder nor a minimiser")
        return found.value, found.stats["num_steps"]

    def tighten(self, tol, factor):
        """A smaller tolerance for the verdict and more steps; the method's own tolerances stay."""
        return Optimistix(self.method, tol, self.max_steps * factor)
