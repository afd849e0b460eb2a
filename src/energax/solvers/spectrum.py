"""The largest curvature of the energy, which bounds the step of explicit relaxation."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from energax.arithmetic import align_batch, scale
from energax.solvers.coordinates import AbstractView
from energax.solvers.coordinates.base import Point
from energax.solvers.plane import align_directions


def largest_curvature(view: AbstractView, point: Point, iterations: int = 8) -> Array:
    """Estimate the largest curvature (the largest |eigenvalue| of d force / dpoint) of every sample.

    The largest |J q| / |q| in the space that a fixed vector and its first images span (Arnoldi): after as many products
    no power iteration is above it. No sample depends on its batch, and none on a random key. Where J is symmetric, as
    that of an energy is, it approaches the true value from below: an estimate, to be used with a margin. Elsewhere it
    approaches J's norm, which is no less than what is asked for.

    Args:
        view: the phase in some coordinates, `StateCoordinates().view(phase, states)`.
        point: where to measure.
        iterations: products with the Jacobian.

    Returns:
        Shape `(batch,)`, in inverse units of the step size.

    Reference: Arnoldi 1951; Saad 2011, *Numerical Methods for Large Eigenvalue Problems*, chapter 6.
    """
    if not jax.tree.leaves(point):
        return jnp.zeros(())  # nothing is free
    _, tangent = jax.linearize(view.force, point)
    first, size = normalise(view, jax.tree.map(fixed_vector, point))
    basis = jax.tree.map(lambda v: jnp.zeros((iterations + 1, *v.shape), v.dtype).at[0].set(v), first)
    images = jnp.zeros((iterations, iterations + 1, *size.shape), size.dtype)

    def split(vector, basis):
        along = jax.vmap(lambda b: view.dot(b, vector))(basis)
        return along, jax.tree.map(lambda v, b: v - jnp.sum(align_directions(along, b) * b, axis=0), vector, basis)

    def product(index, carry):
        basis, images = carry
        pushed = tangent(jax.tree.map(lambda b: b[index], basis))
        along, rest = split(pushed, basis)
        rounding, rest = split(rest, basis)
        along = along + rounding
        # where the space has no more dimensions, what is left is rounding
        left = view.norm(rest) > 64 * jnp.finfo(size.dtype).eps * view.norm(pushed)
        unit, length = normalise(view, jax.tree.map(lambda r: jnp.where(align_batch(left, r), r, 0), rest))
        basis = jax.tree.map(lambda b, u: b.at[index + 1].set(u), basis, unit)
        return basis, images.at[index].set(along.at[index + 1].set(length))

    _, images = jax.lax.fori_loop(0, iterations, product, (basis, images))
    return jnp.sqrt(largest_eigenvalue(jnp.einsum("ikb,jkb->bij", images, images)))


SQUARINGS = 7  # a second eigenvalue of .97 of the first counts 2 % after them


def largest_eigenvalue(matrices: Array) -> Array:
    """Of small symmetric matrices without negative ones, shape `(batch, n, n)`: by squaring, from below."""

    def scaled_to_one(power: Array) -> Array:
        trace = jnp.trace(power, axis1=1, axis2=2)[:, None, None]
        return power / jnp.maximum(trace, jnp.finfo(power.dtype).tiny)

    power = scaled_to_one(matrices)
    for _ in range(SQUARINGS):
        power = scaled_to_one(power @ power)
    return jnp.einsum("bij,bji->b", matrices, power)


def normalise(view: AbstractView, vector: Point) -> tuple[Point, Array]:
    """The vector at length 1, or 0 where it has none, and its length."""
    size = view.norm(vector)
    return scale(1 / jnp.maximum(size, jnp.finfo(size.dtype).tiny), vector), size


def fixed_vector(like: Array) -> Array:
    """A vector without structure, the same for every sample: low-discrepancy numbers in (-1, 1)."""
    size = like[0].size
    golden = (5**0.5 - 1) / 2
    values = 2 * ((jnp.arange(1, size + 1, dtype=jnp.finfo(like.dtype).dtype) * golden) % 1) - 1
    return jnp.broadcast_to(values.reshape(like.shape[1:]), like.shape).astype(like.dtype)
