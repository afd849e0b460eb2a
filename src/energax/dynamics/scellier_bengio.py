"""The energy of Scellier & Bengio 2017, in which the activation acts on what a state sends, not on the state."""

import equinox as eqx
from jaxtyping import Array

from energax.arithmetic import add_all, total
from energax.costs import AbstractCost, SquaredError
from energax.dynamics.base import AbstractEnergy, Context, Start
from energax.dynamics.hopfield import activation_of


class ScellierBengio(AbstractEnergy):
    """E = 1/2 sum_n |v_n|^2 - sum_n <rho_n(v_n), a_n>, with a_n sent by rho(v_source) (2017, Eq. 3).

    Fixed point v = rho'(v) h. There is no closed block minimiser for tanh or sigmoid; use `GradientFlow`.

    Attributes:
        cost: C, read at v_output.
    """

    cost: AbstractCost = eqx.field(default_factory=SquaredError)

    def prepare(self, graph, clamped, key):
        """What the clamped nodes send."""
        for node in graph.nodes:
            activation_of(graph, node.name)
        return Context(clamped, graph.constant(self._rates(graph, clamped)))

    def _rates(self, graph, states: dict[str, Array]) -> dict[str, Array]:
        return {name: activation_of(graph, name)(v) for name, v in states.items()}

    def start(self, graph, context):
        """Silence."""
        return Start(graph.zeros(graph.free(context.clamped), next(iter(context.clamped.values()))))

    def energy(self, graph, states, context):
        """E per sample."""
        rates = self._rates(graph, context.everywhere(states))
        arriving, _ = graph.arrivals(rates, context.constant)
        stored = add_all(total(v**2) / 2 for v in states.values())
        return stored - add_all(total(rates[name] * sent) for name, sent in arriving.items() if name in rates)
