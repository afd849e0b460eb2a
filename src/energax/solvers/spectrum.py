"""The largest curvature of the energy, which bounds the step of explicit relaxation."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from energax.coordinates import AbstractChart
from energax.coordinates.base import Point
from energax.phase import scaled


def largest_curvature(chart: AbstractChart, point: Point, iterations: int = 6) -> Array:
    """Estimate the largest curvature (the largest |eigenvalue| of d force / dpoint) of every sample.

    Power iteration from a fixed vector, so that no sample depends on its batch and none on a random key. It
    approaches the true value from below: an estimate, to be used with a margin.

    Args:
        chart: the phase in some coordinates, `StateCoordinates().chart(phase, states)`.
        point: where to measure.
        iterations: products with the Jacobian.

    Returns:
        Shape `(batch,)`, in inverse units of the step size.
    """
    _, tangent = jax.linearize(chart.force, point)
    vector = jax.tree.map(fixed_vector, point)

    def product(_, carry):
        vector, _ = carry
        pushed = tangent(vector)
        size = chart.norm(pushed)
        return scaled(1 / jnp.maximum(size, jnp.finfo(size.dtype).tiny), pushed), size

    length = chart.norm(vector)
    unit = scaled(1 / jnp.maximum(length, jnp.finfo(length.dtype).tiny), vector)
    return jax.lax.fori_loop(0, iterations, product, (unit, length))[1]


def fixed_vector(like: Array) -> Array:
    """A vector without structure, the same for every sample: low-discrepancy numbers in (-1, 1)."""
    size = like[0].size
    golden = (5**0.5 - 1) / 2
    values = 2 * ((jnp.arange(1, size + 1, dtype=jnp.finfo(like.dtype).dtype) * golden) % 1) - 1
    return jnp.broadcast_to(values.reshape(like.shape[1:]), like.shape).astype(like.dtype)
