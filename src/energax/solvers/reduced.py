"""Relaxation with the products of a short floating-point type."""

from typing import Self

import equinox as eqx
import jax.numpy as jnp

from energax.errors import SettingError
from energax.graph import Graph
from energax.phase import Phase, norm
from energax.rounding import ALGORITHMS, rounded
from energax.solvers.engine import AbstractIteration, AbstractSolver, Equilibrium, Verdict, precision_floor


class Reduced(AbstractSolver):
    """Settles the network whose products are of rounded states and weights, summed in float32.

    The states themselves stay as they are, so that small steps are not lost in rounding, and so does what the clamped
    nodes send, which is computed once. The residual is that of the network as it is: it ends near the type's own
    precision, and a sample that has settled above its tolerance has stalled.

    Wherever phases are contrasted the rounding of both must cancel: that needs a nudge whose effect is above it
    (beta = 1, or equilibrium propagation). At the weak nudges of PC-Nudge the rounding is larger than the nudge.

    Attributes:
        solver: any iteration of this library.
        dtype: `bfloat16` or `float16`.

    Raises:
        SettingError: another type, or a structure without edges.
    """

    solver: AbstractIteration
    dtype: str = eqx.field(static=True, default="bfloat16")

    def __check_init__(self):
        if self.dtype not in ALGORITHMS:
            raise SettingError(f"dtype={self.dtype}: give {' or '.join(ALGORITHMS)}")

    @property
    def nominal_step(self):
        """The solver's."""
        return self.solver.nominal_step

    def solve(self, phase, start):
        """Relax, and judge by the network as it is."""
        end = self.solver.solve(self.short(phase), start)
        scale = jnp.maximum(phase.drive(start), precision_floor(start))
        residual = jnp.where(end.result == Verdict.DIVERGED, end.residual, norm(phase.force(end.states)) / scale)
        above = (end.result == Verdict.CONVERGED) & (residual > self.solver.stop.tol)
        return Equilibrium(end.states, end.steps, residual, jnp.where(above, int(Verdict.STALLED), end.result))

    def short(self, phase: Phase) -> Phase:
        """The phase of the rounded network."""
        graph = phase.graph
        if not isinstance(graph, Graph):
            raise SettingError("reduced precision rounds what edges multiply, and this structure has none")
        sending = {edge.fn for edge in graph.edges}
        fns = {name: rounded(fn, self.dtype) if name in sending else fn for name, fn in graph.fns.items()}
        return eqx.tree_at(lambda p: p.graph.fns, phase, fns)

    def tuned(self, phase, start) -> Self:
        """The solver tuned on the rounded network."""
        return type(self)(self.solver.tuned(self.short(phase), start), self.dtype)

    def tightened(self, tol, factor):
        """The solver itself: references are not rounded."""
        return self.solver.tightened(tol, factor)
