"""Equilibrium propagation on directed nets by a second copy of the states, which carries the error."""

import dataclasses

import equinox as eqx
import jax

from energax.arithmetic import add_trees
from energax.costs import AbstractCost
from energax.dynamics.base import AbstractDynamics, Prepared, Start, descend
from energax.dynamics.phase import Phase, prepare_phase
from energax.rules.adjoint import through_force
from energax.rules.nudging import AbstractNudgingScheme, centred
from energax.rules.vector_field import AbstractResponse, as_scheme


class Covector(AbstractDynamics):
    """dd/dt = J^T d - beta dC/dv, J and dC/dv those of another dynamics at v0, where it rests.

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

    def other(self, phase: Phase) -> Phase:
        """The other's phase, nudged as this one."""
        return dataclasses.replace(phase, dynamics=self.dynamics, constants=phase.constants[0], linear=phase.linear[0])

    def linearise(self, phase):
        """What the other linearises, and J^T."""
        inner = dataclasses.replace(phase, dynamics=self.dynamics, constants=phase.constants[0]).nudge_by(None, None)
        free = dataclasses.replace(inner, linear=self.dynamics.linearise(inner))
        return free.linear, jax.vjp(free.force, phase.constants[1])[1]

    def safe_step(self, phase):
        """The other's: J^T is certified where J is."""
        return self.dynamics.safe_step(self.other(phase))

    def start(self, phase):
        """No error."""
        return Start(jax.tree.map(lambda v: 0 * v, phase.constants[1]))

    def force(self, phase, states):
        """What errors send back, and what the cost adds."""
        (back,) = phase.linear[1](states)
        return (
            back
            if phase.target is None
            else add_trees(back, descend(self.other(phase).nudge_energy, phase.constants[1]))
        )


class DyadicEP(AbstractResponse):
    """g = dC/dtheta + (dforce/dtheta)^T d / beta, with d what a second copy of the states settles at: -beta J^-T dC/dv.

    The mean of the two copies follows the free dynamics, their difference d its transposed linearisation; here the mean
    has settled before d begins, so that d obeys a linear flow and the signal does not depend on beta. The transposed
    Jacobian is that of other units, so that the rule is not local in the strict sense.

    Attributes:
        scheme: as of `AbstractResponse`.

    Reference: Scurria et al. 2026, arXiv 2602.03670.
    """

    scheme: AbstractNudgingScheme = eqx.field(converter=as_scheme, default_factory=lambda: centred(1.0))

    def nudge(self, free, settled):
        """The second copy's."""
        dynamics = Covector(dynamics=free.dynamics, cost=free.dynamics.cost)
        return prepare_phase(dynamics, free.graph, free.clamped, reference=settled)

    def begin(self, settled):
        """No error."""
        return jax.tree.map(lambda v: 0 * v, settled)

    def measure(self, nudged, states):
        """The errors."""
        return states

    def learn(self, free, settled, signal, target, weights):
        """As exact gradients are."""
        return through_force(free, settled, signal, target, weights)
