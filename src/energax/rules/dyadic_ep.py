"""Equilibrium propagation on directed nets by a second copy of the states, which carries the error."""

import equinox as eqx
import jax
import jax.numpy as jnp

from energax.arithmetic import add_trees
from energax.dynamics.base import Start, descend
from energax.dynamics.phase import prepare_phase
from energax.exceptions import SettingError
from energax.graph.parts import list_names
from energax.rules.around import AbstractAround
from energax.rules.nudging import AbstractNudgingScheme, centred
from energax.rules.vector_field import AbstractResponse, as_scheme


class Covector(AbstractAround):
    """dd/dt = J^T d - beta dC/dv, J and dC/dv those of another dynamics at v0, where it rests."""

    def start(self, phase):
        """No error."""
        return Start(jax.tree.map(jnp.zeros_like, phase.constants[1]))

    def force(self, phase, states):
        """What errors send back, and what the cost adds."""
        (back,) = phase.linear[1](states)
        if phase.target is None:
            return back
        return add_trees(back, descend(self.other(phase).nudge_energy, phase.constants[1]))


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
        if free.clamped.known:
            raise SettingError(
                f"DyadicEP settles errors, and of {list_names(free.clamped.known)} some units hold states: use AsymEP"
            )
        dynamics = Covector(dynamics=free.dynamics, cost=free.dynamics.cost)
        return prepare_phase(dynamics, free.graph, free.clamped, reference=settled)

    def begin(self, settled):
        """No error."""
        return jax.tree.map(jnp.zeros_like, settled)

    def measure(self, nudged, states):
        """The errors."""
        return states
