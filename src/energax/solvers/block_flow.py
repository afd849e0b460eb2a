"""Gradient steps block after block."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from energax.coordinates import AbstractCoordinates, StateCoordinates
from energax.errors import SettingError
from energax.solvers.engine import AbstractIteration, Stopping
from energax.solvers.gradient_flow import AbstractStepBound, PerSample, bounded, moved
from energax.solvers.order import AbstractOrder, Alternating


class BlockFlow(AbstractIteration):
    """v_block <- v_block + step * force_block(v), block after block; one step is one sweep over all nodes.

    For energies without exact block minimisers, such as nonlinear predictive coding: a sweep costs about as much as a
    step of gradient flow, since only the forces of the block are computed, and uses the newest neighbours.

    Attributes:
        step_size: nominal step of the states.
        order: `Alternating()` (default): the colours of the graph.
        stop: the stopping rule.
        bound: as in `GradientFlow`; the curvature of all blocks together bounds that of each.
        coordinates: `StateCoordinates()`.
    """

    step_size: Array = eqx.field(converter=jnp.asarray, default=0.4)
    order: AbstractOrder = eqx.field(default_factory=Alternating)
    stop: Stopping = eqx.field(default_factory=Stopping)
    bound: AbstractStepBound = eqx.field(default_factory=PerSample)
    coordinates: AbstractCoordinates = eqx.field(default_factory=StateCoordinates)

    def __check_init__(self):
        if not isinstance(self.coordinates, StateCoordinates):
            raise SettingError(f"{self.coordinates}: blocks are blocks of states; use StateCoordinates()")

    @property
    def nominal_step(self):
        """As given; the bound may shorten it."""
        return self.step_size

    def init(self, chart, point):
        """Bound the step."""
        return bounded(self.step_size, self.bound.limit(chart, point), chart.norm(point))

    def step(self, chart, point, carry):
        """One sweep."""
        for block in self.order.blocks(chart.phase, tuple(point)):
            force = chart.force(point)
            point = {**point, **moved({n: point[n] for n in block}, carry, {n: force[n] for n in block})}
        return point, carry

    def retreat(self, carry, rose):
        """Halve the step and go back."""
        return jnp.where(rose, carry / 2, carry), rose

    def tuned(self, phase, start):
        """Refresh what the step bound holds."""
        return eqx.tree_at(lambda s: s.bound, self, self.bound.tuned(*self.coordinates.chart(phase, start)))
