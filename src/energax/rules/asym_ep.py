"""Equilibrium propagation on directed nets made exact by taking the asymmetry out of the nudged phase."""

import equinox as eqx
import jax

from energax.arithmetic import add_trees, subtract
from energax.dynamics.base import descend
from energax.dynamics.phase import prepare_phase
from energax.rules.around import AbstractAround
from energax.rules.nudging import AbstractNudgingScheme, centred
from energax.rules.vector_field import AbstractResponse, as_scheme


class Corrected(AbstractAround):
    """The force of another dynamics, minus (J - J^T)(v - v0), minus beta dC/dv: near v0 its Jacobian is J^T."""

    def activities(self, phase, states):
        """The other's."""
        return self.dynamics.activities(phase, states)

    def start(self, phase):
        """The other's."""
        return self.dynamics.start(self.other(phase).nudge_by(None, None))

    def force(self, phase, states):
        """Free force, correction and nudge."""
        moved, back = subtract(states, phase.constants[1]), phase.linear[1]
        (transposed,) = back(moved)
        (pushed,) = jax.linear_transpose(lambda given: back(given)[0], moved)(moved)
        free = self.other(phase).nudge_by(None, None).force(states)
        force = jax.tree.map(lambda f, p, t: f - p + t, free, pushed, transposed)
        return force if phase.target is None else add_trees(force, descend(phase.nudge_energy, states))


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
