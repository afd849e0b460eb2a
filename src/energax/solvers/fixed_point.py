"""Fixed-point iteration with exact block minimisers: all nodes at once, or colour after colour."""

import equinox as eqx

from energax.dynamics.base import AbstractBlockEnergy, AbstractDynamics
from energax.exceptions import SettingError
from energax.solvers.coordinates import AbstractCoordinates, StateCoordinates
from energax.solvers.engine import AbstractIteration, Stopping
from energax.solvers.order import AbstractOrder, Alternating


class FixedPoint(AbstractIteration):
    """v_block <- argmin over the block of F, block after block; one step is one sweep over all nodes.

    Attributes:
        order: `Alternating()` (default) or `Synchronous()`.
        stop: the stopping rule.
        coordinates: `StateCoordinates()`.

    Raises:
        SettingError: the dynamics has no block minimiser, or other coordinates than the states.
    """

    order: AbstractOrder = eqx.field(default_factory=Alternating)
    stop: Stopping = eqx.field(default_factory=lambda: Stopping(max_steps=100))
    coordinates: AbstractCoordinates = eqx.field(default_factory=StateCoordinates)

    def __check_init__(self):
        if not isinstance(self.coordinates, StateCoordinates):
            raise SettingError(f"{self.coordinates}: blocks are blocks of states; use StateCoordinates()")

    def init(self, view, point):
        """Nothing is carried."""
        require_blocks(view.phase.dynamics)
        return ()

    def step(self, view, point, carry):
        """One sweep."""
        phase, states = view.phase, point
        for block in self.order.blocks(phase, tuple(states)):
            best = require_blocks(phase.dynamics).block_minimiser(phase, states, block)
            states = {**states, **phase.pin(best)}
        return states, carry


def require_blocks(dynamics: AbstractDynamics) -> AbstractBlockEnergy:
    """The dynamics, if it has block minimisers."""
    if not isinstance(dynamics, AbstractBlockEnergy):
        raise SettingError(
            f"FixedPoint needs block minimisers, and {type(dynamics).__name__} has none; "
            "use GradientFlow, or subclass AbstractBlockEnergy"
        )
    return dynamics
