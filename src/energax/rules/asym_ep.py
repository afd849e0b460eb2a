"""Equilibrium propagation on directed nets made exact by taking the asymmetry out of the nudged phase."""

import dataclasses

import equinox as eqx
import jax

from energax.arithmetic import subtract
from energax.costs import AbstractCost
from energax.dynamics.base import AbstractDynamics, Prepared, descend
from energax.dynamics.phase import Phase, prepare_phase
from energax.rules.adjoint import through_force
from energax.rules.nudging import AbstractNudgingScheme, centred
from energax.rules.vector_field import AbstractResponse, as_scheme


class Corrected(AbstractDynamics):
    """The force of another dynamics, minus (J - J^T)(v - v0), minus beta dC/dv: near v0 its Jacobian is J^T.

    Attributes:
        dynamics: the other; J is the Jacobian of its free force at v0, where it rests.
        cost: that of the other.
    """

    dynamics: AbstractDynamics
    cost: AbstractCost

    def prepare(self, graph, clamped, reference):
        """What the other prepares, and v0."""
        inner = self.dynamics.prepare(graph, clamped, reference)
        return Prepared(inner.sent, (inner.constants, reference))

    def linearise(self, phase):
        """What the other linearises, and J^T: a product with J is its transpose."""
        constants, rest = phase.constants
        free = dataclasses.replace(phase, dynamics=self.dynamics, constants=constants, target=None, beta=None)
        free = dataclasses.replace(free, linear=self.dynamics.linearise(free))
        return free.linear, jax.vjp(free.force, rest)[1]

    def free(self, phase: Phase) -> Phase:
        """The other's free phase."""
        constants, linear = phase.constants[0], phase.linear[0]
        return Phase(self.dynamics, phase.graph, phase.clamped, phase.sent, constants, linear)

    def safe_step(self, phase):
        """The other's: J^T is certified where J is."""
        nudged = dataclasses.replace(self.free(phase), target=phase.target, beta=phase.beta)
        return self.dynamics.safe_step(nudged)

    def activities(self, phase, states):
        """The other's."""
        return self.dynamics.activities(phase, states)

    def start(self, phase):
        """The other's."""
        return self.dynamics.start(self.free(phase))

    def force(self, phase, states):
        """Free force, correction and nudge."""
        moved = subtract(states, phase.constants[1])
        back = phase.linear[1]
        (transposed,) = back(moved)
        (pushed,) = jax.linear_transpose(lambda given: back(given)[0], moved)(moved)
        force = jax.tree.map(lambda f, p, t: f - p + t, self.free(phase).force(states), pushed, transposed)
        if phase.target is None:
            return force
        return jax.tree.map(lambda a, b: a + b, force, descend(phase.nudge_energy, states))


class AsymEP(AbstractResponse):
    """g = dC/dtheta + (dforce/dtheta)^T a, with a what states answer to a nudge under the force `Corrected`.

    To first order in beta the answer is -J^-T dC/dv, the exact signal. The correction needs the Jacobian of other
    units, so that the rule is not local in the strict sense.

    Attributes:
        scheme: as of `AbstractResponse`.

    Reference: Scurria et al. 2026, arXiv 2602.03670.
    """

    scheme: AbstractNudgingScheme = eqx.field(converter=as_scheme, default_factory=lambda: centred(0.1))

    def nudge(self, free, settled):
        """The corrected phase."""
        dynamics = Corrected(dynamics=free.dynamics, cost=free.dynamics.cost)
        return prepare_phase(dynamics, free.graph, free.clamped, reference=settled)

    def measure(self, nudged, states):
        """The states: the correction is made in their coordinates."""
        return states

    def learn(self, free, settled, signal, target, weights):
        """As exact gradients are."""
        return through_force(free, settled, signal, target, weights)
