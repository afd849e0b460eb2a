"""Linear systems, one per sample, solved as one batch: what implicit differentiation needs."""

import itertools
import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from energax.dynamics.base import AbstractEnergy
from energax.dynamics.phase import Phase
from energax.graph.parts import States
from energax.solvers.verdict import Verdict

RESTART = 30  # vectors of Krylov's basis that are held at once
PROGRESS = 0.99  # a round that leaves more than this share of the residual is a standstill


class LinearSolution(eqx.Module):
    """Solutions, and how each sample's solve ended.

    Attributes:
        states: the solutions, batch first.
        steps: products with the operator, shape `(batch,)`.
        residual: |right - operator(states)| / |right|, shape `(batch,)`; 0 where the right side is 0.
        result: a `Verdict` as an integer, shape `(batch,)`; stalled is the limit of the precision or of the basis.
    """

    states: States
    steps: Array
    residual: Array
    result: Array


def solve_force_jacobian(
    phase: Phase, states: States, right: States, tol: float | None = None, max_steps: int = 1000
) -> LinearSolution:
    """Solve -J^T x = right with J = dforce/dv at `states`, per sample: x carries dC/dv = right to the force.

    J is symmetric where the force is the gradient of an energy. Arguments as in `solve_linear`.
    """
    _, forward = jax.linearize(phase.force, states)
    back = jax.linear_transpose(forward, states)
    symmetric = isinstance(phase.dynamics, AbstractEnergy)

    def operator(vector):
        return jax.tree.map(jnp.negative, back(vector)[0])

    return solve_linear(operator, right, symmetric=symmetric, tol=tol, max_steps=max_steps)


def solve_linear(
    operator: Callable[[States], States], right: States, *, symmetric: bool, tol: float | None, max_steps: int
) -> LinearSolution:
    """Solve operator(x) = right, every sample by its own numbers: no sample's solution depends on another's.

    Conjugate gradients where the operator is symmetric, else GMRES with restarts (Saad & Schultz 1986); each takes one
    product a step and meets the operator's own condition number. GMRES also goes on where conjugate gradients meet a
    direction of negative curvature: at a saddle.

    Args:
        operator: linear, sample by sample; positive definite at a stable equilibrium.
        right: the right side, batch first, real.
        symmetric: whether the operator is.
        tol: residual, relative to the right side, at which a sample is solved; None takes 100 eps.
        max_steps: bound on the products of a sample.
    """
    shapes = {name: value.shape for name, value in right.items()}
    ends = [0, *itertools.accumulate(math.prod(shape[1:]) for shape in shapes.values())]

    def join(states):
        return jnp.concatenate([states[name].reshape(shape[0], -1) for name, shape in shapes.items()], axis=1)

    def part(rows):
        pieces = zip(shapes.items(), ends[:-1], ends[1:], strict=True)
        return {name: rows[:, a:b].reshape(shape) for (name, shape), a, b in pieces}

    def product(rows):
        return join(operator(part(rows)))

    b = join(right)
    size = jnp.linalg.norm(b, axis=1)
    goal = (100 * jnp.finfo(b.dtype).eps if tol is None else tol) * size
    x, rest, solved, steps = jnp.zeros_like(b), b, size <= goal, jnp.zeros(size.shape, int)
    if symmetric:
        x, solved, steps = conjugate_gradients(product, b, goal, max_steps)
        rest = b - product(x)
    x, rest, stalled, steps = gmres(product, b, (x, rest, ~solved, steps), goal, max_steps)
    left = jnp.linalg.norm(rest, axis=1)
    result = jnp.where(stalled, int(Verdict.STALLED), int(Verdict.OUT_OF_STEPS))
    result = jnp.where(solved | (left <= goal), int(Verdict.CONVERGED), result)
    result = jnp.where(jnp.isfinite(left), result, int(Verdict.DIVERGED))
    return LinearSolution(part(x), steps, left / jnp.where(size > 0, size, 1), result)


def conjugate_gradients(
    product: Callable[[Array], Array], right: Array, goal: Array, max_steps: int
) -> tuple[Array, Array, Array]:
    """Solve per row from 0; rows that are solved, or meet no positive curvature, stay where they are.

    Returns:
        Solutions, which rows are solved, and the products that each took.
    """

    def unfinished(now):
        return jnp.any(now[-2]) & (now[-1] < max_steps)

    def advance(now):
        x, rest, direction, steps, active, taken = now
        pushed = product(direction)
        square, curvature = jnp.sum(rest**2, axis=1), jnp.sum(direction * pushed, axis=1)
        steps = jnp.where(active, steps + 1, steps)
        active &= curvature > 0
        length = jnp.where(active, square / jnp.where(active, curvature, 1), 0)[:, None]
        x, rest = x + length * direction, rest - length * pushed
        after = jnp.sum(rest**2, axis=1)
        direction = rest + (after / jnp.where(square > 0, square, 1))[:, None] * direction
        return x, rest, direction, steps, active & (jnp.sqrt(after) > goal), taken + 1

    active = jnp.linalg.norm(right, axis=1) > goal
    first = (jnp.zeros_like(right), right, right, jnp.zeros(goal.shape, int), active, 0)
    x, rest, _, steps, _, _ = jax.lax.while_loop(unfinished, advance, first)
    return x, jnp.linalg.norm(rest, axis=1) <= goal, steps


def gmres(
    product: Callable[[Array], Array],
    right: Array,
    begin: tuple[Array, Array, Array, Array],
    goal: Array,
    max_steps: int,
) -> tuple[Array, Array, Array, Array]:
    """Solve per row in rounds of `RESTART` products, each from where the last one ended.

    Args:
        product: the operator on rows.
        right: the right side, shape `(batch, unknowns)`.
        begin: first solution, what it leaves of the right side, which rows are unfinished, products taken.
        goal: norm of what may be left, shape `(batch,)`.
        max_steps: bound on the products of a row.

    Returns:
        Solutions, what they leave, which rows stand still, products taken.
    """
    basis_size = min(RESTART, right.shape[1])

    def unfinished(now):
        _, _, active, _, steps = now
        return jnp.any(active & (steps < max_steps))

    def one_round(now):
        x, rest, active, stalled, steps = now
        active &= steps < max_steps
        before = jnp.linalg.norm(rest, axis=1)
        move, taken = minimise_residual(product, rest, active, goal, basis_size)
        x = x + move
        rest = jnp.where(active[:, None], right - product(x), rest)
        after = jnp.linalg.norm(rest, axis=1)
        stalled |= active & ~(after <= PROGRESS * before)
        return x, rest, active & (after > goal) & ~stalled, stalled, steps + jnp.where(active, taken + 1, 0)

    x, rest, active, steps = begin
    first = (x, rest, active, jnp.zeros_like(active), steps)
    x, rest, _, stalled, steps = jax.lax.while_loop(unfinished, one_round, first)
    return x, rest, stalled, steps


def minimise_residual(
    product: Callable[[Array], Array], rest: Array, active: Array, goal: Array, basis_size: int
) -> tuple[Array, Array]:
    """The move in Krylov's space that leaves least of `rest`, and the products that each row took.

    Arnoldi's process; Givens' rotations make its matrix triangular column by column, so that every step knows what it
    would leave. A row that is finished gets columns of the identity with 0 on the right.
    """
    batch, units = rest.shape
    columns = jnp.arange(basis_size + 1)
    size = jnp.linalg.norm(rest, axis=1)
    basis = jnp.zeros((basis_size + 1, batch, units), rest.dtype).at[0].set(divide(rest, size))
    triangle = jnp.broadcast_to(jnp.eye(basis_size, dtype=rest.dtype), (batch, basis_size, basis_size))
    turns = jnp.zeros((2, basis_size, batch), rest.dtype)
    aims = jnp.zeros((batch, basis_size), rest.dtype)

    def unfinished(now):
        return jnp.any(now[5]) & (now[-1] < basis_size)

    def extend(now):
        basis, triangle, turns, aims, left, active, taken, k = now
        grown = product(basis[k])
        column = jnp.zeros((batch, basis_size + 1), rest.dtype)
        for _ in range(2):  # what rounding leaves of the old directions is taken out once more
            along = jnp.einsum("jbn,bn->bj", basis, grown)
            grown, column = grown - jnp.einsum("jbn,bj->bn", basis, along), column + along
        below = jnp.linalg.norm(grown, axis=1)
        column = jnp.where(columns == k + 1, below[:, None], column)

        def turn(j, column):
            cosine, sine = turns[:, j]
            upper, lower = column[:, j], column[:, j + 1]
            return column.at[:, j].set(cosine * upper + sine * lower).at[:, j + 1].set(cosine * lower - sine * upper)

        column = jax.lax.fori_loop(0, k, turn, column)
        length = jnp.hypot(column[:, k], column[:, k + 1])
        used = active & (length > 0)
        cosine, sine = (divide(column[:, i, None], length)[:, 0] for i in (k, k + 1))
        column = jnp.where(columns == k, length[:, None], jnp.where(columns < k, column, 0))[:, :basis_size]
        triangle = triangle.at[:, :, k].set(jnp.where(used[:, None], column, triangle[:, :, k]))
        aims = aims.at[:, k].set(jnp.where(used, cosine * left, 0))
        left = jnp.where(used, -sine * left, left)
        taken = jnp.where(active, taken + 1, taken)
        basis = basis.at[k + 1].set(divide(grown, below))
        return (
            basis,
            triangle,
            turns.at[:, k].set(jnp.stack([cosine, sine])),
            aims,
            left,
            used & (jnp.abs(left) > goal),
            taken,
            k + 1,
        )

    first = (basis, triangle, turns, aims, size, active, jnp.zeros(batch, int), 0)
    basis, triangle, _, aims, _, _, taken, _ = jax.lax.while_loop(unfinished, extend, first)
    weights = jax.scipy.linalg.solve_triangular(triangle, aims[:, :, None])[:, :, 0]
    return jnp.einsum("jbn,bj->bn", basis[:-1], weights), taken


def divide(rows: Array, by: Array) -> Array:
    """Rows over a number each; 0 where that is 0."""
    return rows * jnp.where(by > 0, 1 / jnp.where(by > 0, by, 1), 0)[:, None]
