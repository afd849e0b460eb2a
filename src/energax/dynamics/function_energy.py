"""An energy given as a function, for models that are no graph."""

from collections.abc import Callable

import equinox as eqx
from jaxtyping import Array

from energax.costs import AbstractCost, SquaredError, as_cost
from energax.dynamics.base import AbstractEnergy, FreeGradient, Prepared


class FunctionEnergy(AbstractEnergy):
    """E = function(functions, states), on a `Nodes` structure whose `functions` are the parameters.

    Attributes:
        function: `(parameters, states) -> energy`, with states (clamped ones included) of shape
            `(batch, *shape)` and an energy of shape `(batch,)`; must not mix samples.
        cost: C, read at the output node's state.
        at_rest: what dF/dtheta is at the free equilibrium.
    """

    function: Callable[..., Array]
    cost: AbstractCost = eqx.field(converter=as_cost, default_factory=SquaredError)
    at_rest: FreeGradient = eqx.field(static=True, default=FreeGradient.OWN)

    def free_gradient(self, graph):
        """As told."""
        return self.at_rest

    def prepare(self, graph, clamped, reference):
        """Only the clamped values."""
        return Prepared(clamped)

    def start(self, phase):
        """Zeros."""
        return phase.silence()

    def energy(self, phase, states):
        """The function's value."""
        return self.function(phase.graph.functions, phase.everywhere(states))
