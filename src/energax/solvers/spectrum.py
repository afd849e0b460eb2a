"""The largest curvature of the energy, which bounds the step of explicit relaxation."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from energax.phase import Phase, norm, scaled
from energax.structure import States


def largest_curvature(phase: Phase, states: States, iterations: int = 6) -> Array:
    """Estimate the largest curvature (the largest |eigenvalue| of d force / dv) of every sample.

    Power iteration from a fixed vector, so that no sample depends on its batch and none on a random key. It
    approaches the true value from below: an estimate, to be used with a margin.

    Args:
        phase: the phase.
        states: where to measure.
        iterations: products with the Jacobian.

    Returns:
        Shape `(batch,)`, in inverse units of the step size.
    """
    _, tangent = jax.linearize(phase.force, states)
    vector = jax.tree.map(fixed_vector, states)

    def product(_, carry):
        vector, _ = carry
        pushed = tangent(vector)
        size = norm(pushed)
        return scaled(1 / jnp.maximum(size, jnp.finfo(size.dtype).tiny), pushed), size

    unit = scaled(1 / norm(vector), vector)
    return jax.lax.fori_loop(0, iterations, product, (unit, norm(unit)))[1]


def fixed_vector(like: Array) -> Array:
    """A vector without structure, the same for every sample: low-discrepancy numbers in (-1, 1)."""
    size = like[0].size
    golden = (5**0.5 - 1) / 2
    values = 2 * ((jnp.arange(1, size + 1, dtype=jnp.finfo(like.dtype).dtype) * golden) % 1) - 1
    return jnp.broadcast_to(values.reshape(like.shape[1:]), like.shape).astype(like.dtype)
