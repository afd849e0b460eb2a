"""The energy of Scellier & Bengio 2017, in which the activation acts on what a state sends, not on the state."""

import equinox as eqx
from jaxtyping import Array

from energax.arithmetic import add_all, total
from energax.costs import AbstractCost, SquaredError, as_cost
from energax.dynamics.base import AbstractEnergy, Prepared
from energax.dynamics.hopfield import activation_of
from energax.graph.parts import Clamped


class ScellierBengio(AbstractEnergy):
    """E = 1/2 sum_n |v_n|^2 - sum_n <rho_n(v_n), a_n>, with a_n sent by rho(v_source) (2017, Eq. 3).

    Fixed point v = rho'(v) h. There is no closed block minimiser for tanh or sigmoid; use `GradientFlow`.

    Attributes:
        cost: C, read at v_output.
    """

    cost: AbstractCost = eqx.field(converter=as_cost, default_factory=SquaredError)

    def prepare(self, graph, clamped, reference):
        """What the clamped nodes send: their rates."""
        for node in graph.nodes:
            activation_of(graph, node.name)
        return Prepared(graph.precompute(Clamped(self._rates(graph, clamped.values), keys=clamped.keys)))

    def _rates(self, graph, states: dict[str, Array]) -> dict[str, Array]:
        return {name: activation_of(graph, name)(v) for name, v in states.items()}

    def start(self, phase):
        """Silence."""
        return phase.silence()

    def energy(self, phase, states):
        """E per sample."""
        rates = self._rates(phase.graph, phase.everywhere(states))
        arriving, _ = phase.graph.arrivals(rates, phase.sent)
        stored = add_all(total(v**2) / 2 for v in states.values())
        return stored - add_all(total(rates[name] * sent) for name, sent in arriving.items() if name in rates)
