"""What is left of a training once it has ended: a network, how its states move, and what settles them."""

import equinox as eqx

from energax.checking import require_kind
from energax.dynamics.base import AbstractDynamics
from energax.dynamics.model import Model
from energax.graph.structure import AbstractStructure, AnyGraph
from energax.solvers.engine import AbstractSolver

ORDER = "(in this order: graph, dynamics, solver; a learner: rule and optimiser after them)"


class Predictor(eqx.Module):
    """A trained network with the solver that settles it.

    Attributes:
        graph: the network, with its parameters.
        dynamics: how states move.
        solver: what settles them.

    Raises:
        SettingError: something in the place of something else.
    """

    graph: AnyGraph
    dynamics: AbstractDynamics
    solver: AbstractSolver

    def __check_init__(self):
        kinds = {
            "graph": (AbstractStructure, f"give a Graph, as networks.mlp makes them {ORDER}"),
            "dynamics": (AbstractDynamics, f"give a dynamics, as PredictiveCoding() {ORDER}"),
            "solver": (AbstractSolver, f"give a solver, as GradientFlow() {ORDER}"),
        }
        for name, (kind, remedy) in kinds.items():
            require_kind(f"{type(self).__name__}: {name}", getattr(self, name), kind, remedy)

    @property
    def model(self) -> Model:
        """What the parameters are in."""
        return Model(self.graph, self.dynamics)
