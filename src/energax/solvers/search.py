"""What the solvers with a line search share."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array

from energax.coordinates import AbstractChart
from energax.coordinates.base import Point
from energax.dynamics import AbstractEnergy
from energax.errors import SettingError
from energax.phase import Phase


def searched(chart: AbstractChart, force: Point, direction: Point, curvature: Callable[[Point], Array]) -> Array:
    """Length of the step along `direction` that minimises the local quadratic model, shape `(batch,)`.

    Where F is not convex along the direction, the size of the curvature still sets the scale (as in saddle-free
    Newton), and the engine's test of the energy is what guards the step.
    """
    slope, bend = chart.dot(force, direction), jnp.abs(curvature(direction))
    return jnp.where(bend > 0, slope / jnp.where(bend > 0, bend, 1), 0)


def require_gradient(phase: Phase, solver: str) -> None:
    """Refuse a dynamics whose force is not the gradient of its energy."""
    if not isinstance(phase.dynamics, AbstractEnergy):
        raise SettingError(
            f"{solver} follows the gradient of an energy, and the force of {type(phase.dynamics).__name__} is none; "
            "use FixedPoint where it has block minimisers, GradientFlow or Optimistix elsewhere"
        )
