"""Dynamics around an equilibrium of another one: what the exact rules of directed nets settle."""

import dataclasses

import jax

from energax.costs import AbstractCost
from energax.dynamics.base import AbstractDynamics, Prepared
from energax.dynamics.phase import Phase


class AbstractAround(AbstractDynamics):
    """A dynamics that knows v0, where another one rests, and the transposed Jacobian J^T of its free force there.

    In a phase `constants` are the other's and v0, `linear` what the other linearises and v -> (J^T v,).

    Attributes:
        dynamics: the other.
        cost: that of the other.
    """

    dynamics: AbstractDynamics
    cost: AbstractCost

    def prepare(self, graph, clamped, reference):
        """What the other prepares, and v0."""
        inner = self.dynamics.prepare(graph, clamped, reference)
        return Prepared(inner.sent, (inner.constants, reference))

    def linearise(self, phase):
        """What the other linearises, and J^T."""
        constants, rest = phase.constants
        bare = dataclasses.replace(phase, dynamics=self.dynamics, constants=constants).nudge_by(None, None)
        free = dataclasses.replace(bare, linear=self.dynamics.linearise(bare))
        return free.linear, jax.vjp(free.force, rest)[1]

    def other(self, phase: Phase) -> Phase:
        """The other's phase, nudged as this one."""
        return dataclasses.replace(phase, dynamics=self.dynamics, constants=phase.constants[0], linear=phase.linear[0])

    def safe_step(self, phase):
        """The other's: J^T is certified where J is."""
        return self.dynamics.safe_step(self.other(phase))
