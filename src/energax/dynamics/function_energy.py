"""An energy given as a function, for models that are no graph."""

from collections.abc import Callable

import equinox as eqx
from jaxtyping import Array

from energax.costs import AbstractCost, SquaredError
from energax.dynamics.base import AbstractEnergy, Context, Start


class FunctionEnergy(AbstractEnergy):
    """E = function(functions, states), on a `Nodes` structure whose `functions` are the parameters.

    Attributes:
        function: `(parameters, states) -> energy`, with states (clamped ones included) of shape
            `(batch, *shape)` and an energy of shape `(batch,)`; must not mix samples.
        cost: C, read at the output node's state.
    """

    function: Callable[..., Array]
    cost: AbstractCost = eqx.field(default_factory=SquaredError)

    def prepare(self, graph, clamped, key):
        """Only the clamped values."""
        return Context(clamped)

    def start(self, graph, context):
        """Zeros."""
        return Start(graph.zeros(graph.free(context.clamped), next(iter(context.clamped.values()))))

    def energy(self, graph, states, context):
        """The function's value."""
        return self.function(graph.functions, context.everywhere(states))
