"""Additive networks of leaky units with directed synapses, as in Hopfield 1984 without the symmetry."""

import equinox as eqx

from energax.activations import steepest
from energax.arithmetic import add_trees
from energax.costs import AbstractCost, SquaredError, as_cost
from energax.dynamics.base import Prepared, descend
from energax.dynamics.directed import AbstractDirected, Leak, as_graph, as_leak, leaks_of, require_leak
from energax.graph.parts import Clamped


class LeakyDirected(AbstractDirected):
    """du_n/dt = a_n - l_n u_n - beta dC/dr_n, with a_n what the activities r = rho(u) of others send along the edges.

    Forward and feedback edges are different functions, so that J need not be symmetric. A node's activation is its
    rho, any function; edges are any layers, and biases belong to them. The cost reads the activity of the output, and
    a nudge pulls by dC/dr: activities r then answer by (W - l / rho')^-1 dC/dr, which is the exact signal where W is
    symmetric, as what membranes answer is not (docs/directed.md).

    Attributes:
        leak: l > 0, a number, or node -> one number or one for each of its units.
        cost: C.

    Reference: the additive model of Scellier et al. 2018 with a leak of its own for every unit.
    """

    leak: Leak = eqx.field(converter=as_leak("LeakyDirected: leak"), default=1.0)
    cost: AbstractCost = eqx.field(converter=as_cost, default_factory=SquaredError)

    def __check_init__(self):
        require_leak("LeakyDirected: leak", self.leak, positive=True)

    def prepare(self, graph, clamped, reference):
        """What the activities of the clamped nodes send."""
        rates = {name: as_graph(graph).activate(name, value) for name, value in clamped.values.items()}
        return Prepared(graph.precompute(Clamped(rates, keys=clamped.keys)))

    def losses(self, graph, free):
        """The leaks."""
        return leaks_of(self.leak, graph, free)

    def slope(self, graph, name):
        """That of rho."""
        activation = graph.node(name).activation
        return 1.0 if activation is None else steepest(graph.functions[activation])

    def start(self, phase):
        """Silence."""
        return phase.silence()

    def activities(self, phase, states):
        """rho(u)."""
        return {name: as_graph(phase.graph).activate(name, state) for name, state in states.items()}

    def force(self, phase, states):
        """A - l u - beta dC/dr."""
        rates = self.activities(phase, states)
        arriving, _ = phase.graph.arrivals({**phase.sent.values, **rates}, phase.sent)
        force = self.lose(phase, states, arriving)
        if phase.target is None or phase.beta is None:
            return force
        beta, target = phase.beta, phase.target

        def nudge_energy(rates):
            return beta * self.cost(phase.graph.output_value({**phase.sent.values, **rates}, phase.sent), target)

        return add_trees(force, descend(nudge_energy, rates))
